"""Sums over all triplets without listing them: each pair counts as often as it is in an active triplet.

A triplet of a positive pair and a negative pair of the same anchor is active if its hinge term
`D_ap - D_an + margin` is positive. The sum of the terms follows from the number of active triplets of each
pair. There are three ways to count them; the fastest depends on the number of positives.
"""

from __future__ import annotations

import dataclasses

import tensorflow as tf

from ccp_dml.losses.pairs import Pairs

# Up to this many positives of an anchor, comparing each with all negatives is faster than sorting; up to this
# many samples, a small cube of all triplets is faster than a loop over the positives.
_FEW = 64
_INFINITY = float("inf")


def sum_of_triplets(pairs: Pairs, margin: float, semi_hard: bool = False) -> tuple[tf.Tensor, tf.Tensor]:
    """Sums the hinge terms of all triplets, or of the semi-hard ones, and counts those that are not zero.

    `D_ap + margin` is added once for each active triplet of the positive pair, and `D_an` subtracted once for
    each of the negative pair. These counts are constant almost everywhere, and so they are the gradient.

    Args:
        pairs: pairs [A, S].
        margin: in units of the distance.
        semi_hard: True for triplets with `D_ap < D_an` only; the margin has to be positive then.

    Returns:
        Two float32 scalars: the sum, and the number of active triplets, which has no gradient.
    """
    of_positives, of_negatives = triplets_of_pairs(pairs, margin, semi_hard)
    count = tf.reduce_sum(of_positives)
    return tf.reduce_sum((of_positives - of_negatives) * pairs.distances) + margin * count, count


def hardest_pairs(pairs: Pairs) -> Pairs:
    """Keeps the farthest positives and the nearest negatives of each anchor.

    Each anchor keeps as many of either as the anchor with the fewest has, at least one.
    """
    return dataclasses.replace(
        pairs,
        positives=_smallest(-pairs.distances, pairs.positives),
        negatives=_smallest(pairs.distances, pairs.negatives),
    )


def _smallest(keys: tf.Tensor, mask: tf.Tensor) -> tf.Tensor:
    """Keeps the smallest keys of each row under the mask, as many as the shortest row has, at least one."""
    wanted = tf.maximum(1.0, tf.reduce_min(count_pairs(mask)))
    order = tf.argsort(tf.where(mask, tf.stop_gradient(keys), keys.dtype.max), axis=1, stable=True)
    ranks = tf.cast(tf.argsort(order, axis=1), tf.float32)
    return mask & (ranks < wanted)


def count_pairs(mask: tf.Tensor) -> tf.Tensor:
    """Counts the pairs of each anchor under a mask [A, S]: float32 [A]."""
    return tf.math.count_nonzero(mask, axis=1, dtype=tf.float32)


def triplets_of_pairs(pairs: Pairs, margin: float, semi_hard: bool = False) -> tuple[tf.Tensor, tf.Tensor]:
    """Counts the active triplets of each positive pair, and of each negative pair.

    Args:
        pairs: pairs [A, S].
        margin: in units of the distance.
        semi_hard: as for `sum_of_triplets`.

    Returns:
        Two float32 [A, S], without gradient; 0 for pairs that are not positive, or not negative.
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
    """Counts by the cube of all triplets: O(A S²), for few samples."""
    positives = tf.where(pairs.positives, pairs.distances, -_INFINITY)[:, :, tf.newaxis]
    negatives = tf.where(pairs.negatives, pairs.distances, _INFINITY)[:, tf.newaxis, :]
    active = _active(positives, negatives, margin, semi_hard)
    return tf.reduce_sum(active, axis=2), tf.reduce_sum(active, axis=1)


def _by_comparison(
    pairs: Pairs, margin: float, semi_hard: bool, most: tf.Tensor
) -> tuple[tf.Tensor, tf.Tensor]:
    """Counts one positive of each anchor after the other, at most `most` of them: O(A S most)."""
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


def _active(positives: tf.Tensor, negatives: tf.Tensor, margin: float, semi_hard: bool) -> tf.Tensor:
    """Returns 1 where a positive and a negative distance form an active triplet, else 0: float32."""
    active = negatives < positives + margin
    return tf.cast(active & (negatives > positives) if semi_hard else active, tf.float32)


def _by_sorting(pairs: Pairs, margin: float, semi_hard: bool) -> tuple[tf.Tensor, tf.Tensor]:
    """Counts by sorting the distances of each anchor: O(A S log S)."""
    positives, negatives = (tf.cast(mask, tf.float32) for mask in (pairs.positives, pairs.negatives))
    of_negatives, of_positives = _count_smaller(
        pairs.distances, negatives, pairs.distances + margin, positives
    )
    if not semi_hard:
        return of_positives, of_negatives
    # Every triplet is active, or has a negative farther than its positive, or both, which is semi-hard. So
    # the number of semi-hard triplets of a pair is the sum of the first two numbers minus all its triplets.
    farther_positives, farther_negatives = _count_smaller(
        pairs.distances, positives, pairs.distances, negatives
    )
    all_positives, all_negatives = (
        tf.reduce_sum(mask, axis=1, keepdims=True) for mask in (positives, negatives)
    )
    of_positives = tf.nn.relu(of_positives + farther_positives - all_negatives * positives)
    return of_positives, tf.nn.relu(of_negatives + farther_negatives - all_positives * negatives)


def _count_smaller(
    first: tf.Tensor, first_mask: tf.Tensor, second: tf.Tensor, second_mask: tf.Tensor
) -> tuple[tf.Tensor, tf.Tensor]:
    """Counts pairs of a `first` and a `second` value of the same row where the first is smaller.

    Args:
        first: float32 [A, S].
        first_mask: float32 [A, S], 1 for values that count, else 0.
        second: float32 [A, S].
        second_mask: float32 [A, S], 1 for values that count, else 0.

    Returns:
        Two float32 [A, S]: for each `first` the number of larger `second`, for each `second` the number of
        smaller `first`; 0 where a mask is 0.
    """
    # The sort is stable: of equal keys the second comes first, so that it does not count.
    order = tf.argsort(tf.concat([second, first], axis=1), axis=1, stable=True)
    zeros = tf.zeros_like(first)
    firsts = tf.gather(tf.concat([zeros, first_mask], axis=1), order, axis=1, batch_dims=1)
    seconds = tf.gather(tf.concat([second_mask, zeros], axis=1), order, axis=1, batch_dims=1)
    larger = firsts * tf.cumsum(seconds, axis=1, reverse=True)
    smaller = seconds * tf.cumsum(firsts, axis=1)
    # Undoes the sort. Each place occurs once, so that the segment sum sums nothing.
    rows, width = tf.shape(order)[0], tf.shape(order)[1]
    places = tf.range(rows)[:, tf.newaxis] * width + order
    counts = tf.math.unsorted_segment_sum(larger + smaller, places, rows * width)
    of_seconds, of_firsts = tf.split(tf.reshape(counts, tf.shape(order)), 2, axis=1)
    return of_firsts, of_seconds
