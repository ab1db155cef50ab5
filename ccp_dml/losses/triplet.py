"""Triplet loss over all triplets of a batch, the hardest or the semi-hard ones, without listing triplets."""

from __future__ import annotations

import dataclasses
from typing import Any

import tensorflow as tf

from ccp_dml.losses.pair_loss import PairLoss
from ccp_dml.losses.pairs import Pairs, number_of_anchors

TRIPLETS: tuple[str, ...] = ("all", "hardest", "semi_hard")


@tf.keras.utils.register_keras_serializable("ccp_dml")
class Triplet(PairLoss):
    """Each positive of an anchor nearer, by a margin, than each of its negatives.

    With D the distances, the terms are `relu(D_ap - D_an + margin)` over the triplets of anchor a, positive p
    and negative n. `average='active'` divides their sum by the number of those that are not zero; `'all'` by
    A S^2, the size of the cube, or, for the hardest and the semi-hard triplets, by the number of triplets.

    `triplets='hardest'` takes, per anchor, the farthest positives and the nearest negatives, as many of
    either as the anchor that has the fewest has (at least one). `triplets='semi_hard'` takes those whose
    negative is farther than the positive, but by less than the margin.

    Schroff, Kalenichenko, Philbin, "FaceNet", CVPR 2015, eq. 2 and 4. Time is O(A S log S) and memory O(A S).
    """

    def __init__(self, margin: float = 0.1, triplets: str = "all", **options: Any) -> None:
        """Sets the margin and the triplets.

        Args:
            margin: in units of the distance.
            triplets: `'all'`, `'hardest'` or `'semi_hard'`.
            **options: those of `PairLoss`.

        Raises:
            ValueError: if `triplets` is unknown, or semi-hard and the margin is not positive.
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
        """As in the base class: how many triplets are the hardest depends on all anchors."""
        return super().in_blocks and self.triplets != "hardest"

    def sums(self, pairs: Pairs) -> list[tf.Tensor]:
        """Sum of the terms, and what it is divided by."""
        if self.triplets == "semi_hard":
            return list(sum_of_semi_hard_triplets(pairs, self.margin))
        if self.triplets == "hardest":
            pairs = hardest_pairs(pairs)
        total, active = sum_of_triplets(pairs, self.margin)
        if self.average == "active":
            return [total, active]
        if self.triplets == "hardest":
            return [total, tf.reduce_sum(_count(pairs.positives) * _count(pairs.negatives))]
        samples = tf.cast(tf.shape(pairs.distances)[1], tf.float32)
        return [total, number_of_anchors(pairs) * samples**2]


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


def sum_of_semi_hard_triplets(pairs: Pairs, margin: float) -> tuple[tf.Tensor, tf.Tensor]:
    """Sum of the hinge terms of all triplets with `D_ap < D_an < D_ap + margin`, and how many they are.

    Each triplet is active, or has a negative farther than the positive, or (semi-hard) both: so each pair
    counts as often as it is in a triplet of either kind, less all its triplets.

    Args:
        pairs: pairs [A, S].
        margin: in units of the distance, positive.

    Returns:
        Two float32 scalars; the first has a gradient.
    """
    constants = tf.stop_gradient(pairs.distances)
    positives, negatives = (tf.cast(mask, tf.float32) for mask in (pairs.positives, pairs.negatives))
    active_positives, active_negatives = _in_order(constants, negatives, constants + margin, positives)
    farther_negatives, farther_positives = _in_order(constants, positives, constants, negatives)
    all_positives, all_negatives = (
        tf.reduce_sum(mask, axis=1, keepdims=True) for mask in (positives, negatives)
    )
    of_positives = tf.nn.relu(active_positives + farther_positives - all_negatives) * positives
    of_negatives = tf.nn.relu(active_negatives + farther_negatives - all_positives) * negatives
    count = tf.reduce_sum(of_positives)
    total = tf.reduce_sum((of_positives - of_negatives) * pairs.distances) + margin * count
    return total, count


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


def _in_order(
    first: tf.Tensor, first_mask: tf.Tensor, second: tf.Tensor, second_mask: tf.Tensor
) -> tuple[tf.Tensor, tf.Tensor]:
    """How often a `first` of a row is smaller than a `second` of it.

    Args:
        first: float32 [A, S].
        first_mask: float32 [A, S], 1 for those that count.
        second: float32 [A, S].
        second_mask: float32 [A, S].

    Returns:
        Float32 [A, S]: for each `second` how many are smaller, for each `first` how many are larger.
    """
    # The sort is stable: of equal keys the second comes first, so that it does not count.
    order = tf.argsort(tf.concat([second, first], axis=1), axis=1, stable=True)
    places = tf.argsort(order, axis=1)
    nothing = tf.zeros_like(first)
    firsts = tf.gather(tf.concat([nothing, first_mask], axis=1), order, axis=1, batch_dims=1)
    seconds = tf.gather(tf.concat([second_mask, nothing], axis=1), order, axis=1, batch_dims=1)
    before = tf.gather(tf.cumsum(firsts, axis=1), places, axis=1, batch_dims=1)
    after = tf.gather(tf.cumsum(seconds, axis=1, reverse=True), places, axis=1, batch_dims=1)
    samples = tf.shape(first)[1]
    return before[:, :samples], after[:, samples:]


def _count(mask: tf.Tensor) -> tf.Tensor:
    return tf.math.count_nonzero(mask, axis=1, dtype=tf.float32)
