"""Proxy-anchor loss."""

from __future__ import annotations

from typing import Any

import tensorflow as tf

from ccp_dml.losses.pair_loss import PairLoss
from ccp_dml.losses.pairs import Pairs, masked_logsumexp


@tf.keras.utils.register_keras_serializable("ccp_dml")
class ProxyAnchor(PairLoss):
    """Each proxy pulls the samples of its class and pushes all others, the hardest ones most.

    With S the cosine similarities, `sum log(1 + sum_p exp(alpha (margin - S)))` over the proxies, divided by
    the number of those with a positive sample in the batch, plus `sum log(1 + sum_n exp(alpha (S + margin)))`
    over the proxies, divided by the number of those with a negative one.

    Kim et al., "Proxy anchor loss for deep metric learning", CVPR 2020, eq. 4.
    """

    only_distance = "cosine"
    only_proxy_anchor = True
    pair_based = False

    def __init__(self, alpha: float = 32.0, margin: float = 0.1, **options: Any) -> None:
        """Sets the hinges.

        Args:
            alpha: steepness.
            margin: similarity that positives must exceed, and the negative of what negatives must stay below.
            **options: those of `PairLoss`; `num_classes` and `embedding_size` are needed.
        """
        super().__init__(**options)
        self.alpha = alpha
        self.margin = margin

    def sums(self, pairs: Pairs) -> list[tf.Tensor]:
        """Of the proxies' pulls the sum and the number of those that pull, then the same of the pushes."""
        pull = masked_logsumexp(
            self.alpha * (self.margin - pairs.similarities), pairs.positives, with_zero=True
        )
        push = masked_logsumexp(
            self.alpha * (self.margin + pairs.similarities), pairs.negatives, with_zero=True
        )
        pulling, pushing = (
            tf.math.count_nonzero(tf.reduce_any(mask, axis=1), dtype=tf.float32)
            for mask in (pairs.positives, pairs.negatives)
        )
        return [tf.reduce_sum(pull), pulling, tf.reduce_sum(push), pushing]

    def combined(self, sums: list[tf.Tensor]) -> tf.Tensor:
        """The mean pull and the mean push."""
        pull, pulling, push, pushing = sums
        return tf.math.divide_no_nan(pull, pulling) + tf.math.divide_no_nan(push, pushing)
