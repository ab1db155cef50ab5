"""Multi-similarity loss: soft hinges that weigh hard pairs most."""

from __future__ import annotations

from typing import Any

import tensorflow as tf

from ccp_dml.losses.pair_loss import PairLoss
from ccp_dml.losses.pairs import Pairs, masked_logsumexp


@tf.keras.utils.register_keras_serializable("ccp_dml")
class MultiSimilarity(PairLoss):
    """Two soft hinges for each anchor, one over its positives and one over its negatives.

    With S the cosine similarities, the mean over the anchors of
    `log(1 + sum_p exp(alpha (threshold - S))) / alpha + log(1 + sum_n exp(beta (S - threshold))) / beta`.

    Wang et al., "Multi-similarity loss with general pair weighting for deep metric learning", CVPR 2019,
    eq. 15, without the mining of the paper.

    Example:
        >>> loss = MultiSimilarity(alpha=2.0, beta=10.0)
        >>> round(float(loss([0, 0, 1], [[1.0, 0.0], [0.8, 0.6], [0.0, 1.0]])), 3)
        0.234
    """

    only_distance = "cosine"
    only_proxy_anchor = False
    columns_in_shards = True

    def __init__(
        self, alpha: float = 2.0, beta: float = 40.0, threshold: float = 0.5, **options: Any
    ) -> None:
        """Sets the hinges.

        Args:
            alpha: steepness for positive pairs, positive.
            beta: steepness for negative pairs, positive.
            threshold: similarity at which both hinges bend.
            **options: arguments of `PairLoss`.

        Raises:
            ValueError: if a steepness is not positive.
        """
        super().__init__(**options)
        if min(alpha, beta) <= 0:
            raise ValueError(f"alpha is {alpha} and beta is {beta}; expected positive numbers")
        self.alpha = alpha
        self.beta = beta
        self.threshold = threshold

    def sums(self, pairs: Pairs) -> list[tf.Tensor]:
        """Returns the sum of the hinges over the anchors, and the number of anchors."""
        excess = pairs.similarities - self.threshold
        columns = pairs.columns
        pull = masked_logsumexp(-self.alpha * excess, pairs.positives, with_zero=True, columns=columns)
        push = masked_logsumexp(self.beta * excess, pairs.negatives, with_zero=True, columns=columns)
        return [tf.reduce_sum(pull / self.alpha + push / self.beta), pairs.anchor_count]
