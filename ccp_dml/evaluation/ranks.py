"""How deep the nearest positive of a query lies, counted in scores that were computed anyway.

Plain comparisons of rows: a search that looks no deeper than R costs hardly more when it is asked for R@1000.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import tensorflow as tf

from ccp_dml.evaluation.inputs import Floats, Ints

_SIGN = 0x8000


def ranks_by_score(scores: tf.Tensor, rows: Ints, members: Ints, own: Ints) -> Ints:
    """Ranks, from 1, of the nearest of each query's listed gallery rows, given the scores of all rows.

    Args:
        scores: float32 [b, G or more], the larger the nearer.
        rows: int [Q], row of `scores` of each query.
        members: int32 [Q, M], gallery indices without `own`, ascending, -1 for no row; no list is empty.
        own: int32 [Q], gallery index of the query itself, not counted, or -1.

    Returns:
        int64 [Q].
    """
    # Other than `numpy()`, a view does not copy.
    view = np.asarray(memoryview(scores))
    ranks = np.empty(len(rows), np.int64)
    for query, (row, listed, itself) in enumerate(zip(rows, members, own)):
        row, listed = view[row], listed[listed >= 0]
        position = listed[np.argmax(row[listed])]
        nearest = row[position]
        # Equal scores rank by index.
        nearer = np.count_nonzero(row[:position] >= nearest) + np.count_nonzero(row[position + 1 :] > nearest)
        if itself >= 0:
            nearer -= row[itself] >= nearest if itself < position else row[itself] > nearest
        ranks[query] = nearer + 1
    return ranks


def rank_bounds_by_coarse_score(
    scores: tf.Tensor,
    rows: Ints,
    members: Ints,
    own: Ints,
    nearest: Floats,
    error: Floats,
    beyond: int,
    ks: Sequence[int],
) -> tuple[Ints, Ints]:
    """Bounds of these ranks, given scores that were rounded to bfloat16 after an error of the products.

    Args:
        scores: bfloat16 [b, G or more].
        rows: as in `ranks_by_score`.
        members: as in `ranks_by_score`.
        own: as in `ranks_by_score`.
        nearest: float32 [Q], score of the nearest listed row.
        error: float32 [Q], bound of the errors before rounding and of that of `nearest`.
        beyond: all ranks are known to be larger.
        ks: ascending; bounds between two of them are good enough.

    Returns:
        (least, largest possible ranks), both int64 [Q].
    """
    bits = np.asarray(memoryview(tf.bitcast(scores, tf.uint16)))
    # What is farther cannot be rounded to more than this; what is nearer, not to less than that.
    above, below = _order(nearest + error, up=True) + 1, _order(nearest - error, up=False)
    least, most = np.full((2, len(rows)), beyond + 1, np.int64)
    for query, (row, listed, itself) in enumerate(zip(rows, members, own)):
        row, listed = bits[row], listed[listed >= 0]
        itself = row[itself : itself + 1] if itself >= 0 else row[:0]
        others = np.concatenate([itself, row[listed]])
        most[query] = 1 + _count_from(row, below[query]) - _count_from(others, below[query])
        if bisect_left(ks, most[query]) > bisect_left(ks, beyond + 1):
            nearer = _count_from(row, above[query]) - _count_from(itself, above[query])
            least[query] = max(beyond, nearer) + 1
    return least, most


def _order(values: Floats, up: bool) -> Ints:
    """The place among bfloat16 numbers, 0 for zero, of the next that is not smaller (or not larger)."""
    bits = np.ascontiguousarray(values, np.float32).view(np.uint32).astype(np.int64)
    magnitude, between = (bits & 0x7FFFFFFF) >> 16, (bits & 0xFFFF) > 0
    negative = bits >> 31 == 1
    return np.where(negative, -magnitude - (between & (not up)), magnitude + (between & up))


def _count_from(bits: npt.NDArray[np.uint16], order: int) -> int:
    """How many bfloat16 numbers have at least this place in their order, by one comparison of their bits."""
    if order > 0:
        return np.count_nonzero(bits.view(np.int16) >= order)
    return np.count_nonzero(bits <= _SIGN - order)
