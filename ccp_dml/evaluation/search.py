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

import contextlib
from collections.abc import Iterator

import numpy as np
import tensorflow as tf

from ccp_dml.evaluation import kernels
from ccp_dml.evaluation.blocks import DEFAULT_MEMORY_BYTES, BlockPlan, plan_count, plan_search
from ccp_dml.evaluation.inputs import Floats, Ints, as_embeddings, own_rows


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
    own = own_rows(len(queries), len(rows), gallery is None, query_ids, gallery_ids)
    indices = np.full((len(queries), k), -1, np.int32)
    distances = np.full((len(queries), k), np.inf, np.float32)
    for part, found, squared in iterate_neighbors(queries, rows, own, k, memory_bytes):
        indices[part, : found.shape[1]] = found
        distances[part, : found.shape[1]] = np.sqrt(squared)
    return indices, distances


def iterate_neighbors(
    queries: Floats, gallery: Floats, own: Ints, depth: int, memory_bytes: int
) -> Iterator[tuple[slice, Ints, Floats]]:
    """Yields (queries' slice, indices [b, depth], squared distances [b, depth]) block by block.

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
    tiles = _tiles(gallery, plan.gallery)
    for part in _parts(len(queries), plan.queries):
        block = tf.constant(queries[part])
        with _full_float32():
            candidates = _search_tiles(block, tiles, plan)
            indices, squared = kernels.rank(
                block, rows, candidates, tf.constant(own[part]), tf.constant(depth)
            )
        yield part, indices.numpy(), squared.numpy()


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
    plan = plan_count(len(queries), len(gallery), gallery.shape[1], members.shape[1] + 1, memory_bytes)
    rows = tf.constant(gallery)
    tiles = _tiles(gallery, plan.gallery)
    ranks = np.empty(len(queries), np.int64)
    for part in _parts(len(queries), plan.queries):
        block, listed = tf.constant(queries[part]), tf.constant(members[part])
        ignored = tf.concat([listed, tf.constant(own[part, np.newaxis])], axis=1)
        with _full_float32():
            threshold, position = kernels.nearest_member(block, rows, listed)
            nearer = [
                kernels.count_nearer(block, tile, tf.constant(first), threshold, position, ignored).numpy()
                for first, tile in tiles
            ]
        ranks[part] = 1 + np.sum(nearer, axis=0)
    return ranks


def _tiles(gallery: Floats, size: int) -> list[tuple[np.int32, tf.Tensor]]:
    """Cuts the gallery into (first row, columns [D + 1, size]).

    The last row of the columns is -|g|^2, so that the product with [2 q, 1] is the whole score.
    """
    dimension = gallery.shape[1]
    tiles = []
    for first in range(0, len(gallery), size):
        rows = gallery[first : first + size]
        columns = np.zeros((dimension + 1, size), np.float32)
        columns[:dimension, : len(rows)] = rows.T
        columns[dimension, : len(rows)] = -np.einsum("nd,nd->n", rows, rows)
        columns[dimension, len(rows) :] = kernels.PADDING_SCORE
        tiles.append((np.int32(first), tf.constant(columns)))
    return tiles


def _parts(total: int, size: int) -> Iterator[slice]:
    for start in range(0, total, size):
        yield slice(start, min(start + size, total))


@contextlib.contextmanager
def _full_float32() -> Iterator[None]:
    """Full float32 products: TensorFloat-32, the default on GPUs, keeps 10 bits and reorders neighbours."""
    before = tf.config.experimental.tensor_float_32_execution_enabled()
    tf.config.experimental.enable_tensor_float_32_execution(False)
    try:
        yield
    finally:
        tf.config.experimental.enable_tensor_float_32_execution(before)


def _search_tiles(queries: tf.Tensor, tiles: list[tuple[np.int32, tf.Tensor]], plan: BlockPlan) -> tf.Tensor:
    """Candidates int32 [b, plan.candidates] over all tiles, ascending by index."""
    count, chunk = tf.constant(plan.candidates), tf.constant(plan.chunk)
    scores, indices = None, None
    for first, tile in tiles:
        if plan.chunk:
            found = kernels.search_chunks(queries, tile, tf.constant(first), count, chunk)
        else:
            found = kernels.search_row(queries, tile, tf.constant(first), count)
        scores, indices = found if scores is None else kernels.merge(scores, indices, *found)
    return indices
