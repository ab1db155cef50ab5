"""Contrastive loss on cosine similarities, summed per anchor."""

from __future__ import annotations

from typing import Any

import tensorflow as tf

from ccp_dml.losses.pair_loss import PairLoss
from ccp_dml.losses.pairs import Pairs, number_of_anchors, positive_part


@tf.keras.utils.register_keras_serializable("ccp_dml")
class OriginalContrastive(PairLoss):
    """C1: positives as similar as can be, negatives less similar than a margin.

    With S the cosine similarities: `sum relu(1 - slack - S)` over the positive pairs plus `sum relu(S -
    margin)` over the negative ones, divided by the number of anchors. `average` has no meaning here.

    The contrastive loss of Wang et al., "Cross-batch memory for embedding learning", CVPR 2020.
    """

    only_distance = "cosine"
    columns_in_shards = True

    def __init__(self, margin: float = 0.5, slack: float = 1e-5, **options: Any) -> None:
        """Sets the margin, in units of similarity.

        Args:
            margin: similarity, in [-1, 1], down from which a negative pair costs nothing.
            slack: positive pairs whose similarity is within this of 1 cost nothing; non-negative.
            **options: those of `PairLoss`.
        """
        super().__init__(**options)
        self.margin = margin
        self.slack = slack

    def sums(self, pairs: Pairs) -> list[tf.Tensor]:
        """The sum of the class docstring, and the number of anchors."""
        apart = positive_part(1.0 - pairs.similarities - self.slack, pairs.positives)
        alike = positive_part(pairs.similarities - self.margin, pairs.negatives)
        total = tf.reduce_sum(apart) + tf.reduce_sum(alike)
        return [pairs.columns.sum(total), number_of_anchors(pairs)]
