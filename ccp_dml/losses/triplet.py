"""Triplet loss over all triplets of a batch, or over the hardest ones, without listing triplets."""

from __future__ import annotations

import dataclasses
from typing import Any

import tensorflow as tf

from ccp_dml.losses.pair_loss import PairLoss
from ccp_dml.losses.pairs import Pairs

TRIPLETS: tuple[str, ...] = ("all", "hardest")


@tf.keras.utils.register_keras_serializable("ccp_dml")
class Triplet(PairLoss):
    """Each positive of an anchor nearer, by a margin, than each of its negatives.

    With D the distances, the terms are `relu(D_ap - D_an + margin)` over the triplets of anchor a, positive p
    and negative n. `average='active'` divides their sum by the number of those that are not zero; `'all'` by
    A S^2, the size of the cube, or, for the hardest triplets, by the number of triplets.

    `triplets='hardest'` takes, per anchor, the farthest positives and the nearest negatives, as many of
    either as the anchor that has the fewest has (at least one).

    Schroff, Kalenichenko, Philbin, "FaceNet", CVPR 2015, eq. 2. Time is O(A S log S) and memory O(A S).
    """

    def __init__(self, margin: float = 0.1, triplets: str = "all", **options: Any) -> None:
        """Sets the margin and the triplets.

        Args:
            margin: in units of the distance.
            triplets: `'all'` or `'hardest'`.
            **options: those of `PairLoss`.

        Raises:
            ValueError: if `triplets` is unknown.
        """
        super().__init__(**options)
        if triplets not in TRIPLETS:
            raise ValueError(f"triplets is {triplets!r}; expected one of {', '.join(TRIPLETS)}")
        self.margin = margin
        self.triplets = triplets

    def formula(self, pairs: Pairs) -> tf.Tensor:
        """As in the class docstring."""
        if self.triplets == "hardest":
            pairs = hardest_pairs(pairs)
        total, active = sum_of_triplets(pairs, self.margin)
        if self.average == "active":
            return tf.math.divide_no_nan(total, active)
        if self.triplets == "hardest":
            return tf.math.divide_no_nan(
                total, tf.reduce_sum(_count(pairs.positives) * _count(pairs.negatives))
            )
        anchors, samples = tf.unstack(tf.cast(tf.shape(pairs.distances), tf.float32))
        return tf.math.divide_no_nan(total, anchors * samples**2)


def sum_of_triplets(pairs: Pairs, margin: float) -> tuple[tf.Tensor, tf.Tensor]:
    """Sum of the hinge terms of all triplets, and how many are not zero.

    In the sorted row of all `D_ap + margin` and `D_an` of an anchor, a triplet is active if its negative
    stands before its positive. So each `D_ap + margin` counts as often as there are negatives before it, and
    each `-D_an` as often as there are positives after it; these counts are constant almost everywhere.

    Args:
        pairs: pairs [A, S].
        margin: in units of the distance.

    Returns:
        Two float32 scalars; the first has a gradient.
    """
    keys = tf.concat([pairs.distances + margin, pairs.distances], axis=1)
    # The sort is stable, and positives come first: a triplet whose term is exactly 0 is not active.
    order = tf.argsort(tf.stop_gradient(keys), axis=1, stable=True)
    nothing = tf.zeros_like(pairs.distances)
    positives = tf.concat([tf.cast(pairs.positives, tf.float32), nothing], axis=1)
    negatives = tf.concat([nothing, tf.cast(pairs.negatives, tf.float32)], axis=1)
    positives = tf.gather(positives, order, axis=1, batch_dims=1)
    negatives = tf.gather(negatives, order, axis=1, batch_dims=1)
    nearer_negatives = positives * tf.cumsum(negatives, axis=1)
    farther_positives = negatives * tf.cumsum(positives, axis=1, reverse=True)
    counts = nearer_negatives - farther_positives
    total = tf.reduce_sum(counts * tf.gather(keys, order, axis=1, batch_dims=1))
    return total, tf.reduce_sum(nearer_negatives)


def hardest_pairs(pairs: Pairs) -> Pairs:
    """The farthest positives and the nearest negatives of each anchor; see `Triplet`."""
    return dataclasses.replace(
        pairs,
        positives=_first(-pairs.distances, pairs.positives),
        negatives=_first(pairs.distances, pairs.negatives),
    )


def _first(keys: tf.Tensor, mask: tf.Tensor) -> tf.Tensor:
    """Of each row, the smallest keys under the mask, as many as the shortest row has (at least one)."""
    wanted = tf.maximum(1.0, tf.reduce_min(_count(mask)))
    order = tf.argsort(tf.where(mask, tf.stop_gradient(keys), keys.dtype.max), axis=1, stable=True)
    ranks = tf.cast(tf.argsort(order, axis=1), tf.float32)
    return mask & (ranks < wanted)


def _count(mask: tf.Tensor) -> tf.Tensor:
    return tf.math.count_nonzero(mask, axis=1, dtype=tf.float32)
