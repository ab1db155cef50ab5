"""How deep the nearest positive of a query lies, counted in scores that were computed anyway.

Plain comparisons of rows: R@1000 needs no search that is deeper than R.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import tensorflow as tf

from ccp_dml.evaluation.inputs import Floats, Ints

_SIGN = 0x8000
# A place before that of every number.
_NOWHERE = -_SIGN


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
    above, below = _place_beside(nearest + error, up=True) + 1, _place_beside(nearest - error, up=False)
    not_counted = np.column_stack([own, members])
    places = np.where(not_counted < 0, _NOWHERE, _place(bits[rows[:, np.newaxis], not_counted]))
    most = 1 + _count_from(bits, rows, below) - np.sum(places >= below[:, np.newaxis], axis=1)
    least = np.full_like(most, beyond + 1)
    unsettled = np.searchsorted(ks, most) > np.searchsorted(ks, beyond + 1)
    above = above[unsettled]
    nearer = _count_from(bits, rows[unsettled], above) - (places[unsettled, 0] >= above)
    least[unsettled] = 1 + np.maximum(nearer, beyond)
    return least, most


def _place_beside(values: Floats, up: bool) -> Ints:
    """The place among bfloat16 numbers of the next one that is not smaller (or not larger)."""
    bits = np.ascontiguousarray(values, np.float32).view(np.uint32).astype(np.int64)
    is_between, is_negative = (bits & 0xFFFF) > 0, bits >> 31 == 1
    steps = (is_between & ~is_negative & up).astype(np.int64) - (is_between & is_negative & (not up))
    return _place(bits >> 16) + steps


def _place(bits: npt.NDArray[np.integer[Any]]) -> Ints:
    """The place among bfloat16 numbers in their order, 0 for zero."""
    bits = bits.astype(np.int64)
    return np.where(bits < _SIGN, bits, _SIGN - bits)


def _count_from(bits: npt.NDArray[np.uint16], rows: Ints, places: Ints) -> Ints:
    """How many bfloat16 numbers of each row have at least a place in their order."""
    signed, counts = bits.view(np.int16), np.empty(len(rows), np.int64)
    reached = np.empty(bits.shape[1], np.bool_)
    for query, (row, place) in enumerate(zip(rows.tolist(), places.tolist())):
        if place > 0:
            np.greater_equal(signed[row], np.int16(place), out=reached)
        else:
            np.less_equal(bits[row], np.uint16(_SIGN - place), out=reached)
        counts[query] = np.count_nonzero(reached)
    return counts
