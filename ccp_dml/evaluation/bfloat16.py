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
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, TypeVar

import numpy as np
import numpy.typing as npt
import tensorflow as tf

from ccp_dml.evaluation import kernels
from ccp_dml.evaluation.blocks import BlockPlan, plan_search
from ccp_dml.evaluation.inputs import Floats, Ints
from ccp_dml.evaluation.kernels import full_float32
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
        """As `as_tile`, of the rows from `first` on: in pieces, so that no float32 copy is whole."""
        last = min(first + size, len(self._gallery))
        pieces = []
        for start in range(first, last, _ROUNDED_AT_ONCE):
            stop = min(start + _ROUNDED_AT_ONCE, last)
            # The last piece has the padding.
            piece = (first + size if stop == last else stop) - start
            pieces.append(as_tile(self._gallery[start:stop] - self._mean, tf.constant(piece)))
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
            best = merge(*best, *later)
        _, candidates, left_out = best
        ranked = kernels.rank(block, self._gallery, candidates, tf.constant(own), tf.constant(depth))
        indices, squared = (values.numpy() for values in ranked)
        proven = squared[:, -1] < least_distances(centred, left_out, self._largest).numpy()
        bounds = None
        if len(self._tiles) == 1:
            bounds = functools.partial(
                self._rank_bounds, scores, queries[proven], own[proven], np.flatnonzero(proven)
            )
        return Found(indices, squared, proven, bounds)

    def _look(self, centred: tf.Tensor, first: tf.Tensor, tile: tf.Tensor) -> tuple[tf.Tensor, Any]:
        scores = score(centred, tile)
        return scores, best_of_chunks(scores, first, self._count, self._chunk)

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
        error = errors(centred, self._largest)
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
    tile, (coarse_tile, _) = kernels.as_tile(rows, size), as_tile(rows, size)
    with full_float32():
        scores, coarse_scores = kernels.score(queries, tile), score(queries, coarse_tile)
    if not tf.reduce_all(coarse_scores == tf.cast(scores, tf.bfloat16)):
        return False

    def in_float32() -> tf.Tensor:
        return kernels.best_of_chunks(kernels.score(queries, tile), first, count, _TRIAL_CHUNK)[1]

    def in_bfloat16() -> tf.Tensor:
        return best_of_chunks(score(queries, coarse_tile), first, count, _TRIAL_CHUNK)[1]

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


# Numbers that a matrix unit multiplies and adds at once; rows that end within one cost half as much again.
_UNIT = 32
# Half the distance to the next number, as a share of a number.
_COARSE_ROUNDING, _FINE_ROUNDING = 2.0**-8, 2.0**-24
# Norms are raised by it: squares below 2^-126 count as zero, and with them what is below 2^-63 in a norm.
_UNDERFLOW = 2.0**-40

_MATRIX = tf.TensorSpec([None, None], tf.float32)
_COARSE_MATRIX = tf.TensorSpec([None, None], tf.bfloat16)
_INDICES = tf.TensorSpec([None, None], tf.int32)
_VECTOR = tf.TensorSpec([None], tf.float32)
_INTEGER = tf.TensorSpec([], tf.int32)


@tf.function(input_signature=[_MATRIX, _INTEGER], autograph=False)
def as_tile(rows: tf.Tensor, size: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
    """As `kernels.as_tile`, bfloat16 [size, D + 3 or more], and the largest norms, float32 [3], see `_norms`.

    -|g|^2 is in three parts, each the rounding of what those before it leave.
    """
    tile = kernels.as_tile(rows, size)
    rest, parts = tile[:, -1:], []
    for _ in range(3):
        parts.append(tf.cast(rest, tf.bfloat16))
        rest -= tf.cast(parts[-1], tf.float32)
    coarse = tf.cast(tile[:, :-1], tf.bfloat16)
    norms = tf.reduce_max(_norms(tile[:, :-1], tf.cast(coarse, tf.float32)), axis=1)
    return _fill_units(tf.concat([coarse, *parts], axis=1)), norms


@tf.function(input_signature=[_MATRIX, _COARSE_MATRIX], autograph=False)
def score(queries: tf.Tensor, tile: tf.Tensor) -> tf.Tensor:
    """As `kernels.score`, of a coarse tile, bfloat16 [b, gallery]."""
    ones = tf.ones([tf.shape(queries)[0], 3], tf.bfloat16)
    block = tf.concat([tf.cast(2.0 * queries, tf.bfloat16), ones], axis=1)
    return tf.matmul(_fill_units(block), tile, transpose_b=True)


def _fill_units(rows: tf.Tensor) -> tf.Tensor:
    return tf.pad(rows, [[0, 0], [0, -tf.shape(rows)[1] % _UNIT]])


@tf.function(input_signature=[_MATRIX, _VECTOR], autograph=False)
def errors(queries: tf.Tensor, largest: tf.Tensor) -> tf.Tensor:
    """A bound [b] of the errors of coarse scores, before these are rounded, and of float32 distances."""
    doubled = 2.0 * queries
    rounded = tf.cast(tf.cast(doubled, tf.bfloat16), tf.float32)
    norm, rounded_norm, change = tf.unstack(_norms(doubled, rounded), 3)
    row_norm, rounded_row_norm, row_change = tf.unstack(largest, 3)
    products = change * rounded_row_norm + norm * row_change
    terms = tf.cast(tf.shape(queries)[1] + 8, tf.float32)
    reach = rounded_norm + norm + rounded_row_norm + row_norm + _UNDERFLOW
    return products + 4.0 * _FINE_ROUNDING * terms * tf.square(reach)


@tf.function(input_signature=[_MATRIX, _VECTOR, _VECTOR], autograph=False)
def least_distances(queries: tf.Tensor, left_out: tf.Tensor, largest: tf.Tensor) -> tf.Tensor:
    """A bound from below [b] of the squared distances of rows whose coarse scores are at most `left_out`."""
    highest_score = left_out + _COARSE_ROUNDING * tf.abs(left_out) + errors(queries, largest)
    return tf.reduce_sum(tf.square(queries), axis=1) - highest_score


def _norms(rows: tf.Tensor, rounded: tf.Tensor) -> tf.Tensor:
    """Norms of rows, of their roundings, and of the difference, float32 [3, n]."""
    return tf.norm(tf.stack([rows, rounded, rows - rounded]), axis=2)


def best_of_chunks(
    scores: tf.Tensor, first: tf.Tensor, count: tf.Tensor, chunk: int
) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
    """As `kernels.best_of_chunks`, of coarse scores."""
    return best_of_given_chunks(scores, kernels.maxima_of_chunks(scores, chunk), first, count)


best_of_given_chunks = tf.function(
    kernels.choose_from_chunks,
    input_signature=[_COARSE_MATRIX, _COARSE_MATRIX, _INTEGER, _INTEGER],
    autograph=False,
)


@tf.function(input_signature=[_MATRIX, _INDICES, _VECTOR] * 2, autograph=False)
def merge(
    scores: tf.Tensor,
    indices: tf.Tensor,
    left_out: tf.Tensor,
    later_scores: tf.Tensor,
    later_indices: tf.Tensor,
    later_left_out: tf.Tensor,
) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
    """As `kernels.merge`, and the best score of what is left out."""
    best = tf.math.top_k(tf.concat([scores, later_scores], axis=1), tf.shape(scores)[1] + 1)[0][:, -1]
    kept = kernels.merge(scores, indices, later_scores, later_indices)
    return (*kept, tf.reduce_max([left_out, later_left_out, best], axis=0))


Item = TypeVar("Item")
Result = TypeVar("Result")


def run_ahead(
    call: Callable[[Item], Result], items: Iterable[Item], threads: int
) -> Iterator[tuple[Item, Result]]:
    """Yields items and results of calls, in order, while as many threads make the next ones.

    For calls that leave Python for most of their time. There are at most `threads + 1` results at a time, and
    one more as long as its user keeps the last.

    Args:
        call: what is done with an item; what it raises is raised in its place.
        items: read as they are needed.
        threads: at least 1.
    """
    with ThreadPoolExecutor(threads) as executor:
        pending: deque[tuple[Item, Future[Result]]] = deque()
        for item in items:
            if len(pending) == threads:
                done, future = pending.popleft()
                result = future.result()
                pending.append((item, executor.submit(call, item)))
                yield done, result
            else:
                pending.append((item, executor.submit(call, item)))
        for item, future in pending:
            yield item, future.result()
