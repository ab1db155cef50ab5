"""Triplet loss over all triplets of a batch, the hardest or the semi-hard ones."""

from __future__ import annotations

from typing import Any

import tensorflow as tf

from ccp_dml.losses.pair_loss import PairLoss
from ccp_dml.losses.pairs import Pairs
from ccp_dml.losses.triplet_counts import count_pairs, hardest_pairs, sum_of_triplets

TRIPLETS: tuple[str, ...] = ("all", "hardest", "semi_hard")


@tf.keras.utils.register_keras_serializable("ccp_dml")
class Triplet(PairLoss):
    """Each positive of an anchor is nearer, by a margin, than each of its negatives.

    With D the distances, the terms are `max(0, D_ap - D_an + margin)` over the triplets of anchor a, positive
    p and negative n. `average='active'` divides their sum by the number of those that are not zero; `'all'`
    by A S^2, the number of cells of all triplets, or, for the hardest and the semi-hard triplets, by the
    number of triplets.

    `triplets='hardest'` takes the farthest positives and the nearest negatives of each anchor, as many of
    either as the anchor with the fewest has (at least one). `triplets='semi_hard'` takes those whose negative
    is farther than the positive, but by less than the margin.

    Time is O(A S log S) and memory O(A S): triplets are counted, not listed.

    Schroff, Kalenichenko, Philbin, "FaceNet", CVPR 2015, eq. 2 and 4.

    Example:
        >>> loss = Triplet(margin=0.5)
        >>> round(float(loss([0, 0, 1], [[1.0, 0.0], [0.8, 0.6], [0.0, 1.0]])), 3)
        0.238
    """

    def __init__(self, margin: float = 0.1, triplets: str = "all", **options: Any) -> None:
        """Sets the margin and the selection of triplets.

        Args:
            margin: in units of the distance.
            triplets: `'all'`, `'hardest'` or `'semi_hard'`.
            **options: arguments of `PairLoss`.

        Raises:
            ValueError: if `triplets` is unknown, or it is semi-hard and the margin is not positive.
        """
        super().__init__(**options)
        if triplets not in TRIPLETS:
            raise ValueError(f"triplets is {triplets!r}; expected one of {', '.join(TRIPLETS)}")
        if triplets == "semi_hard" and margin <= 0:
            raise ValueError(f"margin is {margin}; expected a positive number with semi-hard triplets")
        self.margin = margin
        self.triplets = triplets

    @property
    def in_blocks(self) -> bool:
        """False for the hardest triplets too: their number depends on all anchors."""
        return super().in_blocks and self.triplets != "hardest"

    def sums(self, pairs: Pairs) -> list[tf.Tensor]:
        """Returns the sum of the terms, and the number to divide it by."""
        if self.triplets == "semi_hard":
            return list(sum_of_triplets(pairs, self.margin, semi_hard=True))
        if self.triplets == "hardest":
            pairs = hardest_pairs(pairs)
        total, active = sum_of_triplets(pairs, self.margin)
        if self.options.average == "active":
            return [total, active]
        if self.triplets == "hardest":
            return [total, tf.reduce_sum(count_pairs(pairs.positives) * count_pairs(pairs.negatives))]
        samples = tf.cast(tf.shape(pairs.distances)[1], tf.float32)
        return [total, pairs.anchor_count * samples**2]
