"""Contrastive losses: with a margin for each kind of pair, and the one of cross-batch memory."""

from __future__ import annotations

from typing import Any

import tensorflow as tf

from ccp_dml.losses.pair_loss import PairLoss
from ccp_dml.losses.pairs import Pairs, average_of_hinges, hinge, sums_of_hinges


@tf.keras.utils.register_keras_serializable("ccp_dml")
class Contrastive(PairLoss):
    """C2: positives are nearer than one margin, negatives farther than another.

    With D the distances and m+, m- the margins, the terms are `max(0, D - m+)` of the positive and
    `max(0, m- - D)` of the negative pairs, averaged separately over those that are not zero
    (`average='active'`), or summed together and divided by the size of the matrix (`'all'`).

    Hadsell, Chopra, LeCun, "Dimensionality reduction by learning an invariant mapping", CVPR 2006, eq. 4,
    without the squares and with the positive margin of Wu et al., "Sampling matters in deep embedding
    learning", ICCV 2017.

    Example:
        >>> loss = Contrastive(positive_margin=0.2, negative_margin=1.0)
        >>> round(float(loss([0, 0, 1], [[1.0, 0.0], [0.8, 0.6], [0.0, 1.0]])), 3)
        0.538
    """

    columns_in_shards = True

    def __init__(
        self, positive_margin: float = 0.2652, negative_margin: float = 0.5409, **options: Any
    ) -> None:
        """Sets the margins, in units of the distance.

        Args:
            positive_margin: distance up to which a positive pair costs nothing.
            negative_margin: distance from which a negative pair costs nothing.
            **options: arguments of `PairLoss`.
        """
        super().__init__(**options)
        self.positive_margin = positive_margin
        self.negative_margin = negative_margin

    def sums(self, pairs: Pairs) -> list[tf.Tensor]:
        """Returns the sums of the hinge terms."""
        too_far = hinge(pairs.distances - self.positive_margin, pairs.positives)
        too_near = hinge(self.negative_margin - pairs.distances, pairs.negatives)
        return sums_of_hinges(too_far, too_near, pairs)

    def combined(self, sums: list[tf.Tensor]) -> tf.Tensor:
        """Returns the average of the hinge terms."""
        return average_of_hinges(sums, self.options.average)


@tf.keras.utils.register_keras_serializable("ccp_dml")
class OriginalContrastive(PairLoss):
    """C1: positives have the similarity 1, negatives one below a margin.

    With S the cosine similarities: the sum of `max(0, 1 - slack - S)` over the positive pairs plus the sum of
    `max(0, S - margin)` over the negative ones, divided by the number of anchors. `average` has no effect.

    The contrastive loss of Wang et al., "Cross-batch memory for embedding learning", CVPR 2020.

    Example:
        >>> loss = OriginalContrastive(margin=0.5, slack=0.0)
        >>> round(float(loss([0, 0, 1], [[1.0, 0.0], [0.8, 0.6], [0.0, 1.0]])), 3)
        0.2
    """

    only_distance = "cosine"
    columns_in_shards = True

    def __init__(self, margin: float = 0.5, slack: float = 1e-5, **options: Any) -> None:
        """Sets the margin, in units of the similarity.

        Args:
            margin: similarity, in [-1, 1], up to which a negative pair costs nothing.
            slack: a positive pair whose similarity is at least 1 - slack costs nothing; non-negative.
            **options: arguments of `PairLoss`.
        """
        super().__init__(**options)
        self.margin = margin
        self.slack = slack

    def sums(self, pairs: Pairs) -> list[tf.Tensor]:
        """Returns the sum of all terms, and the number of anchors."""
        apart = hinge(1.0 - pairs.similarities - self.slack, pairs.positives)
        alike = hinge(pairs.similarities - self.margin, pairs.negatives)
        total = tf.reduce_sum(apart) + tf.reduce_sum(alike)
        return [pairs.columns.sum(total), pairs.anchor_count]
