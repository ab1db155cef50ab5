"""A first look at the gallery in bfloat16, with a proof for each query that it missed no neighbour.

Most of an exact search is a product whose scores need not be exact: they only have to leave the neighbours
among the candidates, which are then ranked by exact differences. Processors with matrix units multiply
bfloat16 several times as fast as float32, and the scores take half the memory.

With a and b for the roundings of 2 q and g, Cauchy and Schwarz bound the change that rounding makes to 2 q.g,
from the roundings that were really made:

    |2 q.g - a.b| <= |2 q - a| max |b| + |2 q| max |g - b|

Together with the rounding of the result, this bounds the distances of all rows that were left out from below.
The neighbours of a query are proven if the last one is nearer than this bound. The caller searches in float32
for the other queries, those with many almost equal neighbours.
"""

from __future__ import annotations

import functools
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

import numpy as np
import tensorflow as tf

from ccp_dml.evaluation import kernels
from ccp_dml.evaluation.blocks import BlockPlan, plan_search, slices
from ccp_dml.evaluation.inputs import Floats, Ints
from ccp_dml.evaluation.kernels import INTEGER, MATRIX, VECTOR, best_of_chunks, full_float32
from ccp_dml.evaluation.points import Points, norms
from ccp_dml.evaluation.ranks import Neighbors, rank_bounds_by_coarse_score

# Blocks that are searched while another one is evaluated: some steps of a block use a single processor.
THREADS = 2
# Those, the one that is evaluated, and the one before it, which its user may still hold.
_BLOCKS_AT_ONCE = THREADS + 2
# Below this number of pairs, probing costs more than it saves.
_FEWEST_PAIRS = 2**27
# Share of proven queries in a block below which the first look costs more than it saves.
_FEWEST_PROVEN = 0.75
# The probe: sizes of its block, and how often it is timed.
_TRIAL_QUERIES, _TRIAL_GALLERY, _TRIAL_CHUNK = 256, 8192, 32
_TRIALS = 5
# Gallery rows rounded at once.
_ROUNDED_AT_ONCE = 4096
# Factors that a matrix unit takes at once; rows that end within one cost half as much again.
_UNIT = 32
# Largest relative errors of a rounding to bfloat16 and to float32.
_COARSE_ROUNDING, _FINE_ROUNDING = 2.0**-8, 2.0**-24
# Added to norms: squares below 2^-126 count as zero, and with them parts of a norm below 2^-63.
_UNDERFLOW = 2.0**-40

_COARSE_MATRIX = tf.TensorSpec([None, None], tf.bfloat16)
Item = TypeVar("Item")
Result = TypeVar("Result")


def first_look(points: Points, self_rows: Ints, depth: int, memory_bytes: int) -> Iterator[Neighbors]:
    """Yields the neighbours of the queries for which they are proven; none if the look does not pay.

    Args:
        points: queries and gallery.
        self_rows: int32 [Q], gallery index of the query itself, or -1.
        depth: neighbours per query.
        memory_bytes: bound on the working memory.
    """
    num_gallery, dimension = points.gallery.shape
    chosen = plan(len(points.queries), num_gallery, dimension, depth, memory_bytes)
    if chosen is None:
        return
    coarse = CoarseGallery(points, chosen)

    def search(block: slice) -> Neighbors:
        return coarse.search(self_rows, block, depth)

    for block, found in run_ahead(search, slices(len(points.queries), chosen.queries), THREADS):
        yield found
        if len(found.queries) < _FEWEST_PROVEN * (block.stop - block.start):
            return


def plan(
    num_queries: int, num_gallery: int, dimension: int, depth: int, memory_bytes: int
) -> BlockPlan | None:
    """Chooses the blocks of a first look; None if the search is faster without one on this machine.

    The neighbours are the same either way. `blocks.plan_search` describes the arguments.
    """
    if num_queries * num_gallery < _FEWEST_PAIRS:
        return None
    try:
        found = plan_search(
            num_queries, num_gallery, dimension, depth, memory_bytes // _BLOCKS_AT_ONCE, score_bytes=2
        )
    except ValueError:
        return None  # There may be room for one float32 block.
    return found if found.chunk and _is_faster(dimension) else None


@functools.cache
def _is_faster(dimension: int) -> bool:
    """True if a block takes less time in bfloat16 than in float32, and its sums are exact enough.

    Some machines add bfloat16 products in less than float32, for which the bounds do not hold.
    """
    # Small integers: in float32 only the result is rounded, whatever the order of the sums.
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
        return best_of_chunks(kernels.score(queries, tile), first, count, _TRIAL_CHUNK)[1]

    def in_bfloat16() -> tf.Tensor:
        return best_of_chunks(score(queries, coarse_tile), first, count, _TRIAL_CHUNK)[1]

    with full_float32():
        return _least_seconds(in_bfloat16) < _least_seconds(in_float32)


def _least_seconds(call: Callable[[], tf.Tensor]) -> float:
    """The least duration of some calls after a first one."""
    seconds = []
    for _ in range(1 + _TRIALS):
        start = time.perf_counter()
        call().numpy()
        seconds.append(time.perf_counter() - start)
    return min(seconds[1:])


class CoarseGallery:
    """A gallery rounded to bfloat16, in tiles."""

    def __init__(self, points: Points, plan: BlockPlan) -> None:
        """Rounds the gallery of the points into the tiles of a plan."""
        self._points, self._gallery = points, points.rounded_gallery
        self._count, self._chunk = tf.constant(plan.candidates), plan.chunk
        self._tiles, largest_norms = [], []
        for first in range(0, len(self._gallery), plan.gallery):
            tile, largest = self._tile(first, plan.gallery)
            self._tiles.append((tf.constant(first), tile))
            largest_norms.append(largest)
        self._largest_norms = tf.reduce_max(largest_norms, axis=0)

    def _tile(self, first: int, size: int) -> tuple[tf.Tensor, tf.Tensor]:
        """As `as_tile`, of the rows from `first` on, piece by piece: the float32 copies stay small."""
        last = min(first + size, len(self._gallery))
        pieces = []
        for start in range(first, last, _ROUNDED_AT_ONCE):
            stop = min(start + _ROUNDED_AT_ONCE, last)
            # The last piece includes the padding.
            piece = (first + size if stop == last else stop) - start
            pieces.append(as_tile(self._gallery[start:stop], tf.constant(piece)))
        tiles, largest = zip(*pieces)
        return tf.concat(tiles, axis=0), tf.reduce_max(largest, axis=0)

    def search(self, self_rows: Ints, block: slice, depth: int) -> Neighbors:
        """Finds the neighbours of a block of queries, of those for which they are proven.

        Args:
            self_rows: int32 [Q], gallery index of each query itself, or -1.
            block: the block.
            depth: neighbours per query.
        """
        rounded, self_rows = self._points.rounded_queries(block), self_rows[block]
        embeddings, best = tf.constant(rounded), None
        for first, tile in self._tiles:
            scores = score(embeddings, tile)
            later = best_of_chunks(scores, first, self._count, self._chunk)
            best = later if best is None else kernels.merge(*best, *later)
        assert best is not None
        _, candidates, left_out = best
        ranked = kernels.rank(embeddings, self._gallery, candidates, tf.constant(self_rows))
        rows, squared = (values.numpy() for values in ranked)
        least = least_distances(embeddings, left_out, self._largest_norms).numpy()
        proven = np.flatnonzero(squared[:, depth - 1] < least)
        queries = block.start + proven
        rows, _ = self._points.sort(queries, norms(rounded[proven]), rows[proven], squared[proven])
        bounds = None
        # With several tiles, the scores of the first ones are gone.
        if len(self._tiles) == 1:
            bounds = functools.partial(self._rank_bounds, scores, proven, rounded[proven], self_rows[proven])
        return Neighbors(queries, rows[:, :depth], bounds)

    def _rank_bounds(
        self,
        scores: tf.Tensor,
        rows: Ints,
        queries: Floats,
        self_rows: Ints,
        positions: Ints,
        members: Ints,
        beyond: int,
        ks: Sequence[int],
    ) -> tuple[Ints, Ints]:
        """See `ranks.Neighbors`; the first four arguments are of the proven queries."""
        rows, self_rows, embeddings = rows[positions], self_rows[positions], tf.constant(queries[positions])
        listed = tf.constant(np.where(members < 0, len(self._gallery), members))
        _, squared = kernels.rank(embeddings, self._gallery, listed, tf.constant(self_rows))
        nearest = tf.reduce_sum(tf.square(embeddings), axis=1) - squared[:, 0]
        error = errors(embeddings, self._largest_norms)
        return rank_bounds_by_coarse_score(
            scores, rows, members, self_rows, nearest.numpy(), error.numpy(), beyond, ks
        )


@tf.function(input_signature=[MATRIX, INTEGER], autograph=False)
def as_tile(rows: tf.Tensor, size: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
    """Makes a coarse tile, bfloat16 [size, D + 3 or more], and its largest norms, float32 [3], see `_norms`.

    As `kernels.as_tile`, but with -|g|^2 in three columns, each the rounding of the rest of those before it.
    """
    tile = kernels.as_tile(rows, size)
    rest, columns = tile[:, -1:], []
    for _ in range(3):
        columns.append(tf.cast(rest, tf.bfloat16))
        rest -= tf.cast(columns[-1], tf.float32)
    coarse = tf.cast(tile[:, :-1], tf.bfloat16)
    norms = tf.reduce_max(_norms(tile[:, :-1], tf.cast(coarse, tf.float32)), axis=1)
    return _fill_units(tf.concat([coarse, *columns], axis=1)), norms


@tf.function(input_signature=[MATRIX, _COARSE_MATRIX], autograph=False)
def score(queries: tf.Tensor, tile: tf.Tensor) -> tf.Tensor:
    """2 q.g - |g|^2 of all pairs, bfloat16 [b, gallery], of float32 queries and a coarse tile."""
    ones = tf.ones([tf.shape(queries)[0], 3], tf.bfloat16)
    block = tf.concat([tf.cast(2.0 * queries, tf.bfloat16), ones], axis=1)
    return tf.matmul(_fill_units(block), tile, transpose_b=True)


@tf.function(input_signature=[MATRIX, VECTOR, VECTOR], autograph=False)
def least_distances(queries: tf.Tensor, left_out: tf.Tensor, largest_norms: tf.Tensor) -> tf.Tensor:
    """Bounds from below the squared distances [b] of rows whose coarse scores are at most `left_out`."""
    highest_score = left_out + _COARSE_ROUNDING * tf.abs(left_out) + errors(queries, largest_norms)
    return tf.reduce_sum(tf.square(queries), axis=1) - highest_score


@tf.function(input_signature=[MATRIX, VECTOR], autograph=False)
def errors(queries: tf.Tensor, largest_norms: tf.Tensor) -> tf.Tensor:
    """Bounds the errors [b] of coarse scores, before these are rounded, and of float32 distances."""
    doubled = 2.0 * queries
    rounded = tf.cast(tf.cast(doubled, tf.bfloat16), tf.float32)
    norm, rounded_norm, change = tf.unstack(_norms(doubled, rounded), 3)
    row_norm, rounded_row_norm, row_change = tf.unstack(largest_norms, 3)
    products = change * rounded_row_norm + norm * row_change
    terms = tf.cast(tf.shape(queries)[1] + 8, tf.float32)
    reach = rounded_norm + norm + rounded_row_norm + row_norm + _UNDERFLOW
    return products + 4.0 * _FINE_ROUNDING * terms * tf.square(reach)


def _norms(rows: tf.Tensor, rounded: tf.Tensor) -> tf.Tensor:
    """Norms of rows, of their roundings, and of the differences, float32 [3, n]."""
    return tf.norm(tf.stack([rows, rounded, rows - rounded]), axis=2)


def _fill_units(rows: tf.Tensor) -> tf.Tensor:
    return tf.pad(rows, [[0, 0], [0, -tf.shape(rows)[1] % _UNIT]])


def run_ahead(
    call: Callable[[Item], Result], items: Iterable[Item], threads: int
) -> Iterator[tuple[Item, Result]]:
    """Yields items and the results of calls, in order, while threads make the next calls.

    For calls that spend most of their time outside Python. There are at most `threads + 1` results at a time,
    and one more as long as its user keeps the last.

    Args:
        call: called with each item; its exceptions are raised in the place of its result.
        items: read when they are needed.
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
