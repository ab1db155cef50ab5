"""The result of searching a block of queries: neighbours, and ranks of gallery rows beyond them.

R@1000 needs no search of depth 1000. It needs the rank of the nearest positive, which is a count of the
scores above that of the positive, and the search has computed these scores anyway. The counts are plain
comparisons over rows; rows whose scores are too close to tell are compared in float64.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import tensorflow as tf

from ccp_dml.evaluation.inputs import Floats, Ints
from ccp_dml.evaluation.points import Points, norms

RankBounds = Callable[[Ints, Ints, int, Sequence[int]], tuple[Ints, Ints]]

# Bit of the sign of a bfloat16 number.
_SIGN = 0x8000
# Position before all bfloat16 numbers.
_BEFORE_ALL = -_SIGN


@dataclass(frozen=True)
class Neighbors:
    """Neighbours of a block of queries.

    Attributes:
        queries: int [b], the indices of the queries.
        indices: int32 [b, depth], gallery rows, nearest first, -1 for none.
        rank_bounds: bounds of the rank, from 1, of the nearest of some gallery rows; None if the gallery was
            searched in several tiles. Arguments: positions in the block, int [n]; the listed rows of each,
            int32 [n, M], ascending, without the query itself, -1 for none; a rank that all ranks exceed; and
            ascending ks. Returns the least and the largest possible ranks, int64 [n] each; between two
            successive ks they may differ.
    """

    queries: Ints
    indices: Ints
    rank_bounds: RankBounds | None


def count_nearer(
    points: Points,
    scores: npt.NDArray[np.float32],
    first: int,
    queries: Ints,
    lines: Ints,
    members: Ints,
    self_rows: Ints,
) -> Ints:
    """Counts the rows of a tile that rank before the nearest of each query's listed gallery rows.

    Args:
        points: queries and gallery.
        scores: float32 [b, t], scores of the tile for a block of queries; a larger score is nearer.
        first: gallery index of the first column.
        queries: int [n], indices of the queries.
        lines: int [n], the line of `scores` of each query.
        members: int32 [n, M], gallery indices without the query itself, ascending, -1 for none; no list is
            empty.
        self_rows: int32 [n], gallery index of the query itself, which is not counted, or -1.

    Returns:
        int64 [n]; rows as near as the nearest listed row rank by index.
    """
    squared = points.squared_distances(np.repeat(queries, members.shape[1]), members.ravel())
    squared = squared.reshape(members.shape)
    places = np.argmin(squared, axis=1)[:, np.newaxis]
    nearest, positions = (np.take_along_axis(of, places, axis=1)[:, 0] for of in (squared, members))
    query_norms = norms(points.rounded_queries(queries))
    score, error = query_norms**2 - nearest, points.score_errors(query_norms)
    # Above the one score a row is nearer, below the other it is farther, whatever rounding has done.
    nearer = np.nextafter((score + error).astype(np.float32), np.float32(np.inf))
    farther = np.nextafter((score - error).astype(np.float32), np.float32(-np.inf))
    not_counted = np.column_stack([self_rows, positions]) - first
    counts = np.empty(len(queries), np.int64)
    for place, (query, line) in enumerate(zip(queries, lines)):
        row = scores[line]
        columns = np.flatnonzero(row >= farther[place])
        columns = columns[~np.isin(columns, not_counted[place])]
        is_open = row[columns] <= nearer[place]
        counts[place] = len(columns) - np.count_nonzero(is_open)
        if is_open.any():
            near = columns[is_open] + first
            near = near[near < len(points.gallery)]
            exact = points.squared_distances(np.full(len(near), query), near)
            is_before = (exact == nearest[place]) & (near < positions[place])
            counts[place] += np.count_nonzero((exact < nearest[place]) | is_before)
    return counts


def rank_bounds_by_coarse_score(
    scores: tf.Tensor,
    rows: Ints,
    members: Ints,
    self_rows: Ints,
    nearest: Floats,
    error: Floats,
    beyond: int,
    ks: Sequence[int],
) -> tuple[Ints, Ints]:
    """Bounds the rank of the nearest listed row by scores with an error, rounded to bfloat16.

    Args:
        scores: bfloat16 [b, G or more].
        rows: int [Q], the row of `scores` of each query.
        members: see `count_nearer`.
        self_rows: see `count_nearer`.
        nearest: float32 [Q], score of the nearest listed row.
        error: float32 [Q], bound on the errors of the scores before rounding and of `nearest`.
        beyond: a rank that all ranks exceed.
        ks: ascending; bounds between two successive ks need not be narrower.

    Returns:
        The least and the largest possible ranks, int64 [Q] each.
    """
    bits = np.asarray(memoryview(tf.bitcast(scores, tf.uint16)))
    # A row that is farther is rounded to at most the upper limit, one that is nearer to at least the lower.
    above = _position_beside(nearest + error, up=True) + 1
    below = _position_beside(nearest - error, up=False)
    not_counted = np.column_stack([self_rows, members])
    positions = np.where(not_counted < 0, _BEFORE_ALL, _position(bits[rows[:, np.newaxis], not_counted]))
    most = 1 + _count_from(bits, rows, below) - np.sum(positions >= below[:, np.newaxis], axis=1)
    least = np.full_like(most, beyond + 1)
    # The least rank matters only where the largest one lies beyond another k.
    is_open = np.searchsorted(ks, most) > np.searchsorted(ks, beyond + 1)
    above = above[is_open]
    nearer = _count_from(bits, rows[is_open], above) - (positions[is_open, 0] >= above)
    least[is_open] = 1 + np.maximum(nearer, beyond)
    return least, most


def _position_beside(values: Floats, up: bool) -> Ints:
    """Positions of the next bfloat16 numbers that are not smaller, or not larger, than float32 values."""
    bits = np.ascontiguousarray(values, np.float32).view(np.uint32).astype(np.int64)
    is_between, is_negative = (bits & 0xFFFF) > 0, bits >> 31 == 1
    steps = (is_between & ~is_negative & up).astype(np.int64) - (is_between & is_negative & (not up))
    return _position(bits >> 16) + steps


def _position(bits: npt.NDArray[np.integer[Any]]) -> Ints:
    """Positions of bfloat16 numbers, given as bits, in their order; 0 for zero."""
    bits = bits.astype(np.int64)
    return np.where(bits < _SIGN, bits, _SIGN - bits)


def _count_from(bits: npt.NDArray[np.uint16], rows: Ints, positions: Ints) -> Ints:
    """Number of bfloat16 numbers in each row whose position is at least the given one."""
    signed, counts = bits.view(np.int16), np.empty(len(rows), np.int64)
    is_reached = np.empty(bits.shape[1], np.bool_)
    for query, (row, position) in enumerate(zip(rows.tolist(), positions.tolist())):
        if position > 0:
            np.greater_equal(signed[row], np.int16(position), out=is_reached)
        else:
            np.less_equal(bits[row], np.uint16(_SIGN - position), out=is_reached)
        counts[query] = np.count_nonzero(is_reached)
    return counts
