"""Triplet loss over all triplets of a batch, the hardest or the semi-hard ones, without listing triplets."""

from __future__ import annotations

import dataclasses
from typing import Any

import tensorflow as tf

from ccp_dml.losses.pair_loss import PairLoss
from ccp_dml.losses.pairs import Pairs

TRIPLETS: tuple[str, ...] = ("all", "hardest", "semi_hard")

# Up to so many positives of an anchor, to compare each with all negatives is faster than to sort; up to so
# many samples, a small cube is faster than a loop over the positives.
_FEW = 64
_INFINITY = float("inf")


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
            return list(sum_of_triplets(pairs, self.margin, semi_hard=True))
        if self.triplets == "hardest":
            pairs = hardest_pairs(pairs)
        total, active = sum_of_triplets(pairs, self.margin)
        if self.options.average == "active":
            return [total, active]
        if self.triplets == "hardest":
            return [total, tf.reduce_sum(_count(pairs.positives) * _count(pairs.negatives))]
        samples = tf.cast(tf.shape(pairs.distances)[1], tf.float32)
        return [total, pairs.anchor_count * samples**2]


def sum_of_triplets(pairs: Pairs, margin: float, semi_hard: bool = False) -> tuple[tf.Tensor, tf.Tensor]:
    """Sum of the hinge terms of all triplets, or of the semi-hard ones, and how many are not zero.

    Each `D_ap + margin` counts as often as there are negatives before it, and each `-D_an` as often as there
    are positives after it; these counts are constant almost everywhere, and so they are the gradient.

    Args:
        pairs: pairs [A, S].
        margin: in units of the distance.
        semi_hard: take only triplets with `D_ap < D_an`; the margin is positive then.

    Returns:
        Two float32 scalars; the first has a gradient.
    """
    of_positives, of_negatives = triplets_of_pairs(pairs, margin, semi_hard)
    count = tf.reduce_sum(of_positives)
    return tf.reduce_sum((of_positives - of_negatives) * pairs.distances) + margin * count, count


def triplets_of_pairs(pairs: Pairs, margin: float, semi_hard: bool = False) -> tuple[tf.Tensor, tf.Tensor]:
    """In how many active triplets each positive, and each negative pair is.

    Args:
        pairs: pairs [A, S].
        margin: in units of the distance.
        semi_hard: as for `sum_of_triplets`.

    Returns:
        Two float32 [A, S], without gradient: 0 where a pair is not positive, or not negative.
    """
    pairs = dataclasses.replace(pairs, distances=tf.stop_gradient(pairs.distances))
    samples = pairs.distances.shape[1]
    if samples is not None and samples <= _FEW:
        return _at_once(pairs, margin, semi_hard)
    most = tf.reduce_max(tf.math.count_nonzero(pairs.positives, axis=1, dtype=tf.int32))
    return tf.cond(
        most <= _FEW,
        lambda: _by_comparison(pairs, margin, semi_hard, most),
        lambda: _by_sorting(pairs, margin, semi_hard),
    )


def _at_once(pairs: Pairs, margin: float, semi_hard: bool) -> tuple[tf.Tensor, tf.Tensor]:
    """`triplets_of_pairs` by the cube, of so few samples that it is smaller than the cost of a loop."""
    positives = tf.where(pairs.positives, pairs.distances, -_INFINITY)[:, :, tf.newaxis]
    negatives = tf.where(pairs.negatives, pairs.distances, _INFINITY)[:, tf.newaxis, :]
    active = _active(positives, negatives, margin, semi_hard)
    return tf.reduce_sum(active, axis=2), tf.reduce_sum(active, axis=1)


def _active(positives: tf.Tensor, negatives: tf.Tensor, margin: float, semi_hard: bool) -> tf.Tensor:
    """1 where positive and negative distances make an active triplet, else 0: float32."""
    active = negatives < positives + margin
    return tf.cast(active & (negatives > positives) if semi_hard else active, tf.float32)


def _by_comparison(
    pairs: Pairs, margin: float, semi_hard: bool, most: tf.Tensor
) -> tuple[tf.Tensor, tf.Tensor]:
    """`triplets_of_pairs` for at most `most` positives of an anchor, one after the other: O(A S most)."""
    negatives = tf.where(pairs.negatives, pairs.distances, _INFINITY)
    samples = pairs.distances.shape[1]
    few = tf.minimum(_FEW, tf.shape(pairs.distances)[1]) if samples is None else min(_FEW, samples)
    positives, places = tf.math.top_k(tf.where(pairs.positives, pairs.distances, -_INFINITY), few)
    columns = tf.transpose(positives)[:, :, tf.newaxis]

    def count(index: tf.Tensor, of_positives: tf.Tensor, of_negatives: tf.Tensor) -> list[tf.Tensor]:
        active = _active(columns[index], negatives, margin, semi_hard)
        return [
            index + 1,
            of_positives + tf.one_hot(index, few) * tf.reduce_sum(active, axis=1, keepdims=True),
            of_negatives + active,
        ]

    start = [tf.constant(0), tf.zeros_like(positives), tf.zeros_like(negatives)]
    _, of_positives, of_negatives = tf.while_loop(lambda index, *_: index < most, count, start)
    rows = tf.broadcast_to(tf.range(tf.shape(places)[0])[:, tf.newaxis], tf.shape(places))
    indices = tf.stack([rows, places], axis=-1)
    return tf.scatter_nd(indices, of_positives, tf.shape(pairs.distances)), of_negatives


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


def _by_sorting(pairs: Pairs, margin: float, semi_hard: bool) -> tuple[tf.Tensor, tf.Tensor]:
    """`triplets_of_pairs` for any number of positives: O(A S log S)."""
    positives, negatives = (tf.cast(mask, tf.float32) for mask in (pairs.positives, pairs.negatives))
    of_negatives, of_positives = _in_order(pairs.distances, negatives, pairs.distances + margin, positives)
    if not semi_hard:
        return of_positives, of_negatives
    # Each triplet is active, or has a negative farther than the positive, or (semi-hard) both: so each pair
    # counts as often as it is in a triplet of either kind, less all its triplets.
    farther_positives, farther_negatives = _in_order(pairs.distances, positives, pairs.distances, negatives)
    all_positives, all_negatives = (
        tf.reduce_sum(mask, axis=1, keepdims=True) for mask in (positives, negatives)
    )
    of_positives = tf.nn.relu(of_positives + farther_positives - all_negatives * positives)
    return of_positives, tf.nn.relu(of_negatives + farther_negatives - all_positives * negatives)


def _in_order(
    first: tf.Tensor, first_mask: tf.Tensor, second: tf.Tensor, second_mask: tf.Tensor
) -> tuple[tf.Tensor, tf.Tensor]:
    """How often a `first` of a row is smaller than a `second` of it.

    Args:
        first: float32 [A, S].
        first_mask: float32 [A, S], 1 for those that count, else 0.
        second: float32 [A, S].
        second_mask: float32 [A, S], 1 for those that count, else 0.

    Returns:
        Float32 [A, S]: for each `first` how many are larger, for each `second` how many are smaller; 0 where
        the masks are.
    """
    # The sort is stable: of equal keys the second comes first, so that it does not count.
    order = tf.argsort(tf.concat([second, first], axis=1), axis=1, stable=True)
    nothing = tf.zeros_like(first)
    firsts = tf.gather(tf.concat([nothing, first_mask], axis=1), order, axis=1, batch_dims=1)
    seconds = tf.gather(tf.concat([second_mask, nothing], axis=1), order, axis=1, batch_dims=1)
    larger = firsts * tf.cumsum(seconds, axis=1, reverse=True)
    smaller = seconds * tf.cumsum(firsts, axis=1)
    # Back to where they came from: the place of each is taken once, so that nothing is summed.
    rows, width = tf.shape(order)[0], tf.shape(order)[1]
    places = tf.range(rows)[:, tf.newaxis] * width + order
    counts = tf.math.unsorted_segment_sum(larger + smaller, places, rows * width)
    of_seconds, of_firsts = tf.split(tf.reshape(counts, tf.shape(order)), 2, axis=1)
    return of_firsts, of_seconds


def _count(mask: tf.Tensor) -> tf.Tensor:
    return tf.math.count_nonzero(mask, axis=1, dtype=tf.float32)
