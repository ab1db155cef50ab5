"""The result of searching a block of queries: neighbours, and ranks of gallery rows beyond them.

R@1000 needs no search of depth 1000. It needs the rank of the nearest positive, which is a count of the
scores above that of the positive, and the search has computed these scores anyway. The counts are plain
comparisons over rows.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import tensorflow as tf

from ccp_dml.evaluation.inputs import Floats, Ints

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
        squared_distances: float32 [b, depth].
        rank_bounds: bounds of the rank, from 1, of the nearest of some gallery rows; None if the gallery was
            searched in several tiles. Arguments: positions in the block, int [n]; the listed rows of each,
            int32 [n, M], ascending, without the query itself, -1 for none; a rank that all ranks exceed; and
            ascending ks. Returns the least and the largest possible ranks, int64 [n] each; between two
            successive ks they may differ.
    """

    queries: Ints
    indices: Ints
    squared_distances: Floats
    rank_bounds: RankBounds | None


def ranks_by_score(scores: tf.Tensor, rows: Ints, members: Ints, self_rows: Ints) -> Ints:
    """Ranks the nearest of each query's listed gallery rows by the scores of all rows.

    Args:
        scores: float32 [b, G or more]; a larger score is nearer.
        rows: int [Q], the row of `scores` of each query.
        members: int32 [Q, M], gallery indices without the query itself, ascending, -1 for none; no list is
            empty.
        self_rows: int32 [Q], gallery index of the query itself, which is not counted, or -1.

    Returns:
        Ranks from 1, int64 [Q]; equal scores rank by index.
    """
    # Unlike `numpy()`, a view does not copy.
    view = np.asarray(memoryview(scores))
    ranks = np.empty(len(rows), np.int64)
    for query, (row, listed, self_row) in enumerate(zip(rows, members, self_rows)):
        row, listed = view[row], listed[listed >= 0]
        position = listed[np.argmax(row[listed])]
        nearest = row[position]
        nearer = np.count_nonzero(row[:position] >= nearest) + np.count_nonzero(row[position + 1 :] > nearest)
        if self_row >= 0:
            nearer -= row[self_row] >= nearest if self_row < position else row[self_row] > nearest
        ranks[query] = nearer + 1
    return ranks


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
    """Bounds the same ranks by scores with an error, rounded to bfloat16.

    Args:
        scores: bfloat16 [b, G or more].
        rows: see `ranks_by_score`.
        members: see `ranks_by_score`.
        self_rows: see `ranks_by_score`.
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
