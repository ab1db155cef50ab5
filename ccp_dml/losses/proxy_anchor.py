"""Proxy-anchor loss: soft hinges, with each proxy as an anchor."""

from __future__ import annotations

from typing import Any

import tensorflow as tf

from ccp_dml.losses.pair_loss import PairLoss
from ccp_dml.losses.pairs import Pairs, masked_logsumexp


@tf.keras.utils.register_keras_serializable("ccp_dml")
class ProxyAnchor(PairLoss):
    """Each proxy pulls the samples of its class and pushes all others, the hardest ones most.

    With S the cosine similarities, the sum of `log(1 + sum_p exp(alpha (margin - S)))` over the proxies,
    divided by the number of proxies with a positive sample in the batch, plus the sum of
    `log(1 + sum_n exp(alpha (margin + S)))`, divided by the number of proxies with a negative sample.

    Kim et al., "Proxy anchor loss for deep metric learning", CVPR 2020, eq. 4.

    Example:
        >>> loss = ProxyAnchor(alpha=8.0, num_classes=2, embedding_size=2)
        >>> loss.proxies.reset([[[1.0, 0.0], [0.0, 1.0]]])
        >>> round(float(loss([0, 0, 1], [[1.0, 0.0], [0.8, 0.6], [0.0, 1.0]])), 3)
        3.394
    """

    only_distance = "cosine"
    only_proxy_anchor = True
    pair_based = False

    def __init__(self, alpha: float = 32.0, margin: float = 0.1, **options: Any) -> None:
        """Sets the hinges.

        Args:
            alpha: steepness.
            margin: similarity that positives have to exceed; negatives have to stay below its negative.
            **options: arguments of `PairLoss`; `num_classes` and `embedding_size` are required.
        """
        super().__init__(**options)
        self.alpha = alpha
        self.margin = margin

    def sums(self, pairs: Pairs) -> list[tf.Tensor]:
        """Returns the sum of the pulls and their number, then the sum of the pushes and their number."""
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
        """Returns the mean pull plus the mean push."""
        pull, pulling, push, pushing = sums
        return tf.math.divide_no_nan(pull, pulling) + tf.math.divide_no_nan(push, pushing)
