"""Exact nearest neighbours, block by block.

A block of queries meets a tile of the gallery in one float32 product. The largest scores of a row are found
in two stages: the k best lie in the k chunks with the largest maxima, because each of these chunks holds an
element that is at least as good as any element of the other chunks. So one maximum over chunks and a top-k
over k short chunks replace a top-k over the complete row. The survivors are then ranked by the sum of their
squared differences, which has none of the cancellation in `|g|^2 - 2 q.g`.

Ties go to the smaller gallery index. The query's own gallery row is recognised by its id, never by its rank,
so a duplicate of the query counts as a neighbour.

Memory is linear in the number of rows, and the working memory on top is bounded (see `blocks`).
"""

from __future__ import annotations

import functools
from collections.abc import Iterator, Sequence

import numpy as np
import tensorflow as tf

from ccp_dml.evaluation import bfloat16, kernels
from ccp_dml.evaluation.blocks import DEFAULT_MEMORY_BYTES, BlockPlan, plan_count, plan_search, slices
from ccp_dml.evaluation.inputs import Floats, Ints, as_embeddings, find_self_rows
from ccp_dml.evaluation.kernels import full_float32
from ccp_dml.evaluation.ranks import Neighbors, ranks_by_score


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
        gallery: float [G, D]; None: the queries, each without itself.
        k: neighbours per query, at least 1.
        query_ids: int [Q], with `gallery_ids`; the gallery row with the id of the query is not its neighbour.
        gallery_ids: int [G], unique.
        memory_bytes: bound on the working memory.

    Returns:
        (indices int32 [Q, k], distances float32 [Q, k]), nearest first, ties by smaller index. If the gallery
        has fewer than k rows, the rest is index -1, distance infinite.

    Raises:
        ValueError: on empty, non-finite or ill-shaped input, unmatched ids, or a bound that is too small.
    """
    if k < 1:
        raise ValueError(f"k must be at least 1, got {k}")
    queries = as_embeddings(queries, "queries")
    rows = queries if gallery is None else as_embeddings(gallery, "gallery")
    num_gallery = None if gallery is None else len(rows)
    self_rows = find_self_rows(len(queries), num_gallery, query_ids, gallery_ids)
    indices = np.full((len(queries), k), -1, np.int32)
    distances = np.full((len(queries), k), np.inf, np.float32)
    for found in iterate_neighbors(queries, rows, self_rows, k, memory_bytes):
        depth = found.indices.shape[1]
        indices[found.queries, :depth] = found.indices
        distances[found.queries, :depth] = np.sqrt(found.squared_distances)
        del found  # Frees its scores before those of the next block are made.
    return indices, distances


def iterate_neighbors(
    queries: Floats, gallery: Floats, self_rows: Ints, depth: int, memory_bytes: int
) -> Iterator[Neighbors]:
    """Yields the neighbours of all queries, block by block, in no particular order.

    Args:
        queries: float32 [Q, D], checked.
        gallery: float32 [G, D], checked.
        self_rows: int32 [Q], gallery index of the query itself, or -1.
        depth: neighbours per query; at most G are found.
        memory_bytes: bound on the working memory.
    """
    depth = min(depth, len(gallery))
    plan = plan_search(len(queries), len(gallery), gallery.shape[1], depth, memory_bytes)
    rows = tf.constant(gallery)
    is_found = np.zeros(len(queries), np.bool_)
    for found in bfloat16.first_look(queries, rows, self_rows, depth, memory_bytes):
        is_found[found.queries] = True
        yield found
        del found
    remaining = np.flatnonzero(~is_found)
    tiles = _tiles(rows, plan.gallery) if len(remaining) else []
    for block in slices(len(remaining), plan.queries):
        found = _search_block(remaining[block], queries, rows, self_rows, tiles, plan, depth)
        yield found
        del found  # Frees its scores before those of the next block are made.


def nearest_member_ranks(
    queries: Floats, gallery: Floats, self_rows: Ints, members: Ints, memory_bytes: int
) -> Ints:
    """Ranks the nearest of each query's listed gallery rows by counting the rows that are nearer.

    Takes one product and one comparison per gallery row whatever the rank; the cost of a top-k would grow
    with it.

    Args:
        queries: float32 [Q, D], checked.
        gallery: float32 [G, D], checked.
        self_rows: int32 [Q], gallery index of the query itself, which is not counted, or -1.
        members: int32 [Q, M], gallery indices without the query itself, ascending, -1 for none; no list is
            empty.
        memory_bytes: bound on the working memory.

    Returns:
        Ranks from 1, int64 [Q].
    """
    rows = tf.constant(gallery)
    plan = plan_search(len(queries), len(gallery), gallery.shape[1], 1, memory_bytes)
    ranks = np.empty(len(queries), np.int64)
    if plan.gallery >= len(gallery):
        ((_, tile),) = _tiles(rows, plan.gallery)
        for block in slices(len(queries), plan.queries):
            with full_float32():
                scores = kernels.score(tf.constant(queries[block]), tile)
            ranks[block] = ranks_by_score(scores, np.arange(len(scores)), members[block], self_rows[block])
            del scores
        return ranks
    plan = plan_count(len(queries), len(gallery), gallery.shape[1], members.shape[1] + 1, memory_bytes)
    tiles = _tiles(rows, plan.gallery)
    for block in slices(len(queries), plan.queries):
        embeddings, listed = tf.constant(queries[block]), tf.constant(members[block])
        ignored = tf.concat([listed, tf.constant(self_rows[block, np.newaxis])], axis=1)
        with full_float32():
            nearest = kernels.nearest_member(embeddings, rows, listed)
            nearer = [
                kernels.count_nearer(embeddings, tile, tf.constant(first), *nearest, ignored).numpy()
                for first, tile in tiles
            ]
        ranks[block] = 1 + np.sum(nearer, axis=0)
    return ranks


def _search_block(
    chosen: Ints,
    queries: Floats,
    gallery: tf.Tensor,
    self_rows: Ints,
    tiles: list[tuple[np.int32, tf.Tensor]],
    plan: BlockPlan,
    depth: int,
) -> Neighbors:
    """Finds the neighbours of the chosen queries in float32."""
    embeddings, self_rows = tf.constant(queries[chosen]), self_rows[chosen]
    best = None
    with full_float32():
        for first, tile in tiles:
            scores = kernels.score(embeddings, tile)
            later = _candidates(scores, tf.constant(first), plan)
            best = later if best is None else kernels.merge(*best, *later)
        assert best is not None
        indices, squared = kernels.rank(
            embeddings, gallery, best[1], tf.constant(self_rows), tf.constant(depth)
        )
    # With several tiles, the scores of the first ones are gone.
    bounds = functools.partial(_rank_bounds, scores, self_rows) if len(tiles) == 1 else None
    return Neighbors(chosen, indices.numpy(), squared.numpy(), bounds)


def _candidates(scores: tf.Tensor, first: tf.Tensor, plan: BlockPlan) -> tuple[tf.Tensor, tf.Tensor]:
    """The best scores of a tile and their gallery indices, both [b, plan.candidates], ascending by index."""
    count = tf.constant(plan.candidates)
    if plan.chunk:
        best, indices, left_out = kernels.best_of_chunks(scores, first, count, plan.chunk)
        if not tf.reduce_any(tf.reduce_min(best, axis=1) <= left_out):
            return best, indices
    return kernels.best_of_rows(scores, first, count)


def _rank_bounds(
    scores: tf.Tensor, self_rows: Ints, positions: Ints, members: Ints, beyond: int, ks: Sequence[int]
) -> tuple[Ints, Ints]:
    ranks = ranks_by_score(scores, positions, members, self_rows[positions])
    return ranks, ranks


def _tiles(rows: tf.Tensor, size: int) -> list[tuple[np.int32, tf.Tensor]]:
    """Cuts the gallery, float32 [G, D], into pairs of the first row and a tile [size, D + 1]."""
    # Made by TensorFlow: of an array given to it, a second copy lives until the next operation.
    starts = range(0, len(rows), size)
    return [(np.int32(first), kernels.as_tile(rows[first : first + size], size)) for first in starts]
