"""Exact nearest neighbours, block by block.

A block of queries meets a tile of the gallery in one float32 product. The largest scores of a row are
found in two stages: the k best lie in the k chunks with the largest maxima, because each of these chunks
vouches for an element that is not worse than any element of the chunks left out. One maximum over chunks and
a top-k over k short chunks thus replace a top-k over the whole row. The survivors are then ranked by the sum
of their squared differences, free of the cancellation in `|g|^2 - 2 q.g`.

Ties go to the smaller gallery index. The query's own gallery row is recognised by its id, never by its rank,
so a duplicate of the query counts as the neighbour that it is.

Memory is linear in the number of rows; the working memory on top is bounded (see `blocks`).
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Generator, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import tensorflow as tf

from ccp_dml.evaluation import bfloat16, kernels
from ccp_dml.evaluation.bfloat16 import run_ahead
from ccp_dml.evaluation.blocks import DEFAULT_MEMORY_BYTES, BlockPlan, plan_count, plan_search
from ccp_dml.evaluation.inputs import Floats, Ints, as_embeddings, local_rows
from ccp_dml.evaluation.kernels import full_float32
from ccp_dml.evaluation.ranks import ranks_by_score

# Of a block; with fewer, a first look in bfloat16 costs more than it saves.
_FEWEST_PROVEN = 0.75


def nearest_neighbors(
    queries: Floats,
    gallery: Floats | None = None,
    *,
    k: int,
    query_ids: Ints | None = None,
    gallery_ids: Ints | None = None,
    memory_bytes: int = DEFAULT_MEMORY_BYTES,
) -> tuple[Ints, Floats]:
    """Finds the nearest gallery rows of every query by Euclidean distance.

    Args:
        queries: float [Q, D].
        gallery: float [G, D]; None: the queries themselves, each without itself.
        k: neighbours per query, at least 1.
        query_ids: int [Q], with `gallery_ids`; a gallery row with the query's id is not its neighbour.
        gallery_ids: int [G], unique.
        memory_bytes: bound on the working memory.

    Returns:
        (indices int32 [Q, k], distances float32 [Q, k]), nearest first, ties by smaller index. Where the
        gallery has fewer than k rows, the rest is index -1, distance infinite.

    Raises:
        ValueError: on empty, non-finite or ill-shaped input, unmatched ids, or a bound that is too small.
    """
    if k < 1:
        raise ValueError(f"k must be at least 1, got {k}")
    queries = as_embeddings(queries, "queries")
    rows = queries if gallery is None else as_embeddings(gallery, "gallery")
    own = local_rows(len(queries), len(rows), gallery is None, query_ids, gallery_ids)
    indices = np.full((len(queries), k), -1, np.int32)
    distances = np.full((len(queries), k), np.inf, np.float32)
    for found in iterate_neighbors(queries, rows, own, k, memory_bytes):
        depth = found.indices.shape[1]
        indices[found.queries, :depth] = found.indices
        distances[found.queries, :depth] = np.sqrt(found.squared_distances)
        del found  # Its scores, before those of the next block are made.
    return indices, distances


@dataclass(frozen=True)
class Neighbors:
    """Neighbours of a block of queries.

    Attributes:
        queries: int [b], which ones.
        indices: int32 [b, depth], gallery rows, nearest first, -1 for none.
        squared_distances: float32 [b, depth].
        rank_bounds: the least and the largest possible rank, from 1, of the nearest of some gallery rows,
            int64 [n]; given places in the block, the rows of each (int32 [n, M], ascending, without the query
            itself, -1 for none), a rank that they are known to be beyond, and ks: bounds between two of them
            need not be narrower. None if the gallery was too large for one piece.
    """

    queries: Ints
    indices: Ints
    squared_distances: Floats
    rank_bounds: Callable[[Ints, Ints, int, Sequence[int]], tuple[Ints, Ints]] | None


def iterate_neighbors(
    queries: Floats, gallery: Floats, own: Ints, depth: int, memory_bytes: int
) -> Iterator[Neighbors]:
    """Yields the neighbours of all queries, a block after another.

    Args:
        queries: float32 [Q, D], checked.
        gallery: float32 [G, D], checked.
        own: int32 [Q], gallery index of the query itself, or -1.
        depth: neighbours per query; at most G of them are delivered.
        memory_bytes: bound on the working memory.
    """
    depth = min(depth, len(gallery))
    plan = plan_search(len(queries), len(gallery), gallery.shape[1], depth, memory_bytes)
    rows = tf.constant(gallery)
    remaining: Ints = np.arange(len(queries))
    coarse = bfloat16.plan(len(queries), len(gallery), gallery.shape[1], depth, memory_bytes)
    if coarse is not None:
        remaining = yield from _screened(queries, rows, own, depth, coarse)
    tiles = _tiles(rows, plan.gallery) if len(remaining) else []
    for part in _parts(len(remaining), plan.queries):
        chosen = remaining[part]
        block = tf.constant(queries[chosen])
        with full_float32():
            candidates, scores = _search_tiles(block, tiles, plan)
            indices, squared = kernels.rank(
                block, rows, candidates, tf.constant(own[chosen]), tf.constant(depth)
            )
        bounds = functools.partial(_rank_bounds, scores, own[chosen]) if len(tiles) == 1 else None
        found = Neighbors(chosen, indices.numpy(), squared.numpy(), bounds)
        del scores, bounds
        yield found
        del found  # Its scores, before those of the next block are made.


def _rank_bounds(
    scores: tf.Tensor, own: Ints, places: Ints, members: Ints, beyond: int, ks: Sequence[int]
) -> tuple[Ints, Ints]:
    ranks = ranks_by_score(scores, places, members, own[places])
    return ranks, ranks


def _screened(
    queries: Floats, rows: tf.Tensor, own: Ints, depth: int, plan: BlockPlan
) -> Generator[Neighbors, None, Ints]:
    """Yields neighbours that a look in bfloat16 has found and proven; returns the queries that remain."""
    screen = bfloat16.Screen(rows, plan)

    def look(part: slice) -> bfloat16.Found:
        return screen.search(queries[part], own[part], depth)

    remaining = [np.arange(0)]
    for part, found in run_ahead(look, _parts(len(queries), plan.queries), bfloat16.THREADS):
        chosen, proven = np.arange(part.start, part.stop), found.proven
        yield Neighbors(
            chosen[proven], found.indices[proven], found.squared_distances[proven], found.rank_bounds
        )
        remaining.append(chosen[~proven])
        if np.mean(proven) < _FEWEST_PROVEN:
            remaining.append(np.arange(part.stop, len(queries)))
            break
    return np.concatenate(remaining)


def nearest_member_ranks(
    queries: Floats, gallery: Floats, own: Ints, members: Ints, memory_bytes: int
) -> Ints:
    """Ranks, from 1, of the nearest of each query's listed gallery rows, by counting what is nearer.

    One product and one comparison per gallery row whatever the rank, where a top-k would grow with it.

    Args:
        queries: float32 [Q, D], checked.
        gallery: float32 [G, D], checked.
        own: int32 [Q], gallery index of the query itself, not counted, or -1.
        members: int32 [Q, M], gallery indices without `own`, ascending, -1 for no row; no list is empty.
        memory_bytes: bound on the working memory.

    Returns:
        int64 [Q].
    """
    rows = tf.constant(gallery)
    plan = plan_search(len(queries), len(gallery), gallery.shape[1], 1, memory_bytes)
    if plan.gallery >= len(gallery):
        return _ranks_in_one_piece(queries, rows, own, members, plan)
    plan = plan_count(len(queries), len(gallery), gallery.shape[1], members.shape[1] + 1, memory_bytes)
    tiles = _tiles(rows, plan.gallery)
    ranks = np.empty(len(queries), np.int64)
    for part in _parts(len(queries), plan.queries):
        block, listed = tf.constant(queries[part]), tf.constant(members[part])
        ignored = tf.concat([listed, tf.constant(own[part, np.newaxis])], axis=1)
        with full_float32():
            threshold, position = kernels.nearest_member(block, rows, listed)
            nearer = [
                kernels.count_nearer(block, tile, tf.constant(first), threshold, position, ignored).numpy()
                for first, tile in tiles
            ]
        ranks[part] = 1 + np.sum(nearer, axis=0)
    return ranks


def _ranks_in_one_piece(queries: Floats, rows: tf.Tensor, own: Ints, members: Ints, plan: BlockPlan) -> Ints:
    ((_, tile),) = _tiles(rows, plan.gallery)
    ranks = np.empty(len(queries), np.int64)
    for part in _parts(len(queries), plan.queries):
        block = tf.constant(queries[part])
        with full_float32():
            scores = kernels.score(block, tile)
        ranks[part] = ranks_by_score(scores, np.arange(len(block)), members[part], own[part])
    return ranks


def _tiles(rows: tf.Tensor, size: int) -> list[tuple[np.int32, tf.Tensor]]:
    """Cuts the gallery float32 [G, D] into (first row, tile [size, D + 1])."""
    # Made by TensorFlow: of an array given to it, a second copy lives until the next operation.
    starts = range(0, len(rows), size)
    return [(np.int32(first), kernels.as_tile(rows[first : first + size], size)) for first in starts]


def _parts(total: int, size: int) -> Iterator[slice]:
    for start in range(0, total, size):
        yield slice(start, min(start + size, total))


def _search_tiles(
    queries: tf.Tensor, tiles: list[tuple[np.int32, tf.Tensor]], plan: BlockPlan
) -> tuple[tf.Tensor, tf.Tensor]:
    """Candidates int32 [b, plan.candidates] over all tiles, ascending by index; scores of the last tile."""
    best, indices = None, None
    for first, tile in tiles:
        scores = kernels.score(queries, tile)
        found = _best(scores, tf.constant(first), plan)
        best, indices = found if best is None else kernels.merge(best, indices, *found)
    return indices, scores


def _best(scores: tf.Tensor, first: tf.Tensor, plan: BlockPlan) -> tuple[tf.Tensor, tf.Tensor]:
    count = tf.constant(plan.candidates)
    if plan.chunk:
        best, indices, left_out = kernels.best_of_chunks(scores, first, count, plan.chunk)
        if not tf.reduce_any(tf.reduce_min(best, axis=1) <= left_out):
            return best, indices
    return kernels.best_of_rows(scores, first, count)
