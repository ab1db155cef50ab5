"""A first look at the gallery in bfloat16, with a proof for each query that it has missed nothing.

Most of an exact search is a product whose scores need not be exact: they only have to leave the neighbours
among the candidates, which are then ranked by exact differences. Processors with matrix units multiply
bfloat16 several times as fast as float32, and the scores take half the memory.

With a and b for the roundings of 2 q and g, what the rounding changes of 2 q.g is bounded by Cauchy and
Schwarz, from the roundings that were really made:

    |2 q.g - a.b| <= |2 q - a| max |b| + |2 q| max |g - b|

With the rounding of the result this gives the least distance of all rows that were left out. A query is
proven if its last neighbour is nearer. Others, those with many almost equal neighbours, are for the caller to
search for in float32.
"""

from __future__ import annotations

import functools
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import tensorflow as tf

from ccp_dml.evaluation import coarse, kernels
from ccp_dml.evaluation.blocks import BlockPlan, plan_search
from ccp_dml.evaluation.full_precision import full_float32
from ccp_dml.evaluation.inputs import Floats, Ints
from ccp_dml.evaluation.ranks import rank_bounds_by_coarse_score

# Blocks looked at while another one is evaluated: parts of a block leave all processors but one idle.
THREADS = 2
# With the one that is evaluated, and the one before it, which its user may still hold.
_BLOCKS_AT_ONCE = THREADS + 2
# What smaller searches take is not worth the time to find out how to do them.
_FEWEST_PAIRS = 2**27
# A block on which both ways are tried, and how often.
_TRIAL_QUERIES, _TRIAL_GALLERY, _TRIAL_CHUNK = 256, 8192, 32
_TRIALS = 5
# Rows of the gallery.
_ROUNDED_AT_ONCE = 4096


def plan(
    num_queries: int, num_gallery: int, dimension: int, depth: int, memory_bytes: int
) -> BlockPlan | None:
    """The blocks of a first look; None if the search is faster without one, on this machine.

    What is found is the same either way, but for rows that float32 scores cannot tell apart: of queries that
    are proven it is then the more exact. For the arguments see `blocks.plan_search`.
    """
    if num_queries * num_gallery < _FEWEST_PAIRS:
        return None
    try:
        found = plan_search(
            num_queries, num_gallery, dimension, depth, memory_bytes // _BLOCKS_AT_ONCE, score_bytes=2
        )
    except ValueError:
        return None  # There may be room for one block in float32 still.
    return found if found.chunk and _is_faster(dimension) else None


@dataclass(frozen=True)
class Found:
    """Neighbours of a block of queries, as far as they are proven.

    Attributes:
        indices: int32 [b, depth], gallery rows, nearest first, -1 for none; without meaning where not proven.
        squared_distances: float32 [b, depth].
        proven: bool [b].
        rank_bounds: see `search.Neighbors`; places count the proven queries.
    """

    indices: Ints
    squared_distances: Floats
    proven: npt.NDArray[np.bool_]
    rank_bounds: Callable[..., tuple[Ints, Ints]] | None


class Screen:
    """A gallery in bfloat16.

    Args:
        gallery: float32 [G, D].
        plan: of the search in float32, whose tiles and chunks are taken.
    """

    def __init__(self, gallery: tf.Tensor, plan: BlockPlan):
        self._gallery = gallery
        self._count, self._chunk = tf.constant(plan.candidates), plan.chunk
        # No distance changes, but the norms shrink, and with them the errors.
        self._mean = tf.reduce_mean(gallery, axis=0)
        self._tiles, norms = [], []
        for first in range(0, len(gallery), plan.gallery):
            tile, largest = self._tile(first, plan.gallery)
            self._tiles.append((tf.constant(first), tile))
            norms.append(largest)
        self._largest = tf.reduce_max(norms, axis=0)

    def _tile(self, first: int, size: int) -> tuple[tf.Tensor, tf.Tensor]:
        """As `coarse.as_tile`, of the rows from `first` on: in pieces, so that no float32 copy is whole."""
        last = min(first + size, len(self._gallery))
        pieces = []
        for start in range(first, last, _ROUNDED_AT_ONCE):
            stop = min(start + _ROUNDED_AT_ONCE, last)
            # The last piece has the padding.
            piece = (first + size if stop == last else stop) - start
            pieces.append(coarse.as_tile(self._gallery[start:stop] - self._mean, tf.constant(piece)))
        tiles, norms = zip(*pieces)
        return tf.concat(tiles, axis=0), tf.reduce_max(norms, axis=0)

    def search(self, queries: Floats, own: Ints, depth: int) -> Found:
        """Neighbours of a block of queries.

        Args:
            queries: float32 [b, D].
            own: int32 [b], gallery index of the query itself, or -1.
            depth: neighbours wanted.
        """
        block = tf.constant(queries)
        centred = block - self._mean
        scores, best = self._look(centred, *self._tiles[0])
        for tile in self._tiles[1:]:
            scores, later = self._look(centred, *tile)
            best = coarse.merge(*best, *later)
        _, candidates, left_out = best
        ranked = kernels.rank(block, self._gallery, candidates, tf.constant(own), tf.constant(depth))
        indices, squared = (values.numpy() for values in ranked)
        proven = squared[:, -1] < coarse.least_distances(centred, left_out, self._largest).numpy()
        bounds = None
        if len(self._tiles) == 1:
            bounds = functools.partial(
                self._rank_bounds, scores, queries[proven], own[proven], np.flatnonzero(proven)
            )
        return Found(indices, squared, proven, bounds)

    def _look(self, centred: tf.Tensor, first: tf.Tensor, tile: tf.Tensor) -> tuple[tf.Tensor, Any]:
        scores = coarse.score(centred, tile)
        return scores, coarse.best_of_chunks(scores, first, self._count, self._chunk)

    def _rank_bounds(
        self,
        scores: tf.Tensor,
        queries: Floats,
        own: Ints,
        rows: Ints,
        places: Ints,
        members: Ints,
        beyond: int,
        ks: Sequence[int],
    ) -> tuple[Ints, Ints]:
        block, itself = tf.constant(queries[places]), tf.constant(own[places])
        listed = tf.constant(np.where(members < 0, len(self._gallery), members))
        _, squared = kernels.rank(block, self._gallery, listed, itself, tf.constant(1))
        centred = block - self._mean
        nearest = tf.reduce_sum(tf.square(centred), axis=1) - squared[:, 0]
        error = coarse.errors(centred, self._largest)
        return rank_bounds_by_coarse_score(
            scores, rows[places], members, own[places], nearest.numpy(), error.numpy(), beyond, ks
        )


@functools.cache
def _is_faster(dimension: int) -> bool:
    """Whether a block takes less time in bfloat16 than in float32, the best of few trials.

    Not if the machine adds up in less than float32, so that the bounds do not hold.
    """
    # Small integers: in float32 nothing but the result is rounded, whatever the order of the sums.
    queries, rows = (
        tf.round(4.0 * tf.random.stateless_normal([size, dimension], seed=(size, 0)))
        for size in (_TRIAL_QUERIES, _TRIAL_GALLERY)
    )
    size, first, count = map(tf.constant, (_TRIAL_GALLERY, 0, 1))
    tile, (coarse_tile, _) = kernels.as_tile(rows, size), coarse.as_tile(rows, size)
    with full_float32():
        scores, coarse_scores = kernels.score(queries, tile), coarse.score(queries, coarse_tile)
    if not tf.reduce_all(coarse_scores == tf.cast(scores, tf.bfloat16)):
        return False

    def in_float32() -> tf.Tensor:
        return kernels.best_of_chunks(kernels.score(queries, tile), first, count, _TRIAL_CHUNK)[1]

    def in_bfloat16() -> tf.Tensor:
        return coarse.best_of_chunks(coarse.score(queries, coarse_tile), first, count, _TRIAL_CHUNK)[1]

    with full_float32():
        return _least_seconds(in_bfloat16) < _least_seconds(in_float32)


def _least_seconds(call: Callable[[], tf.Tensor]) -> float:
    """Of some calls after a first one."""
    seconds = []
    for _ in range(1 + _TRIALS):
        start = time.perf_counter()
        call().numpy()
        seconds.append(time.perf_counter() - start)
    return min(seconds[1:])
