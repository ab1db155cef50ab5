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
from typing import Any

import numpy as np
import numpy.typing as npt
import tensorflow as tf

from ccp_dml.evaluation.blocks import DEFAULT_MEMORY_BYTES, BlockPlan, plan_count, plan_search

Floats = npt.NDArray[np.floating[Any]]
Ints = npt.NDArray[np.integer[Any]]

# Score of padding rows: below that of every real row, finite so that no product makes a NaN of it.
_PADDING_SCORE = -3e38
# Squared norms up to here keep every score finite and above the padding's.
_LARGEST_SQUARED_NORM = 1e36


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
            indices, squared = _rank(block, rows, candidates, tf.constant(own[part]), tf.constant(depth))
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
            threshold, position = _nearest_member(block, rows, listed)
            nearer = [
                _count_nearer(block, tile, tf.constant(first), threshold, position, ignored).numpy()
                for first, tile in tiles
            ]
        ranks[part] = 1 + np.sum(nearer, axis=0)
    return ranks


def as_embeddings(array: Floats, name: str) -> Floats:
    """Checks embeddings and returns them as contiguous float32 [N, D]."""
    array = np.ascontiguousarray(array, np.float32)
    if array.ndim != 2 or 0 in array.shape:
        raise ValueError(f"{name} must be a non-empty matrix [N, D], got shape {array.shape}")
    with np.errstate(over="ignore", invalid="ignore"):
        squared_norms = np.einsum("nd,nd->n", array, array)
    wrong = np.flatnonzero(~(squared_norms <= _LARGEST_SQUARED_NORM))
    if wrong.size:
        raise ValueError(
            f"{name}: {wrong.size} of {len(array)} rows are not finite or too large, first row {wrong[0]}"
        )
    return array


def own_rows(
    num_queries: int,
    num_gallery: int,
    self_retrieval: bool,
    query_ids: Ints | None,
    gallery_ids: Ints | None,
) -> Ints:
    """Gallery index of each query's own row, -1 where it has none, int32 [Q]."""
    if self_retrieval:
        if gallery_ids is not None:
            raise ValueError("gallery_ids were given without a gallery")
        return np.arange(num_queries, dtype=np.int32)
    if (query_ids is None) != (gallery_ids is None):
        raise ValueError("query_ids and gallery_ids must be given together")
    if query_ids is None or gallery_ids is None:
        return np.full(num_queries, -1, np.int32)
    query_ids, gallery_ids = np.asarray(query_ids).ravel(), np.asarray(gallery_ids).ravel()
    if len(query_ids) != num_queries or len(gallery_ids) != num_gallery:
        raise ValueError(
            f"expected {num_queries} query_ids and {num_gallery} gallery_ids, "
            f"got {len(query_ids)} and {len(gallery_ids)}"
        )
    order = np.argsort(gallery_ids, kind="stable")
    ordered = gallery_ids[order]
    repeated = np.flatnonzero(ordered[1:] == ordered[:-1])
    if repeated.size:
        raise ValueError(f"gallery_ids must be unique, id {ordered[repeated[0]]} occurs more than once")
    place = np.minimum(np.searchsorted(ordered, query_ids), num_gallery - 1)
    return np.where(ordered[place] == query_ids, order[place], -1).astype(np.int32)


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
        columns[dimension, len(rows) :] = _PADDING_SCORE
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
            found = _search_chunks(queries, tile, tf.constant(first), count, chunk)
        else:
            found = _search_row(queries, tile, tf.constant(first), count)
        scores, indices = found if scores is None else _merge(scores, indices, *found)
    return indices


def _scores(queries: tf.Tensor, tile: tf.Tensor) -> tf.Tensor:
    """2 q.g - |g|^2 of all pairs [b, gallery]: the larger, the nearer."""
    ones = tf.ones_like(queries[:, :1])
    return tf.matmul(tf.concat([2.0 * queries, ones], axis=1), tile)


# Traced once for all shapes, so that the many sets and block sizes of a process cost no retracing.
_MATRIX = tf.TensorSpec([None, None], tf.float32)
_INDICES = tf.TensorSpec([None, None], tf.int32)
_VECTOR = tf.TensorSpec([None], tf.float32)
_INDEX_VECTOR = tf.TensorSpec([None], tf.int32)
_INTEGER = tf.TensorSpec([], tf.int32)


@tf.function(input_signature=[_MATRIX, _MATRIX, _INTEGER, _INTEGER], autograph=False)
def _search_row(
    queries: tf.Tensor, tile: tf.Tensor, first: tf.Tensor, count: tf.Tensor
) -> tuple[tf.Tensor, tf.Tensor]:
    """Scores and gallery indices [b, count] of the best rows of a tile, ascending by index."""
    scores = _scores(queries, tile)
    columns = tf.sort(tf.math.top_k(scores, count)[1], axis=1)
    return tf.gather(scores, columns, batch_dims=1), first + columns


@tf.function(input_signature=[_MATRIX, _MATRIX, _INTEGER, _INTEGER, _INTEGER], autograph=False)
def _search_chunks(
    queries: tf.Tensor, tile: tf.Tensor, first: tf.Tensor, count: tf.Tensor, chunk: tf.Tensor
) -> tuple[tf.Tensor, tf.Tensor]:
    """As `_search_row`, in two stages; the tile's width is a multiple of `chunk`."""
    size = tf.shape(queries)[0]
    chunks = tf.reshape(_scores(queries, tile), [size, -1, chunk])
    # In ascending order, so that among equal scores top_k still prefers the smaller gallery index.
    selected = tf.sort(tf.math.top_k(tf.reduce_max(chunks, axis=2), count)[1], axis=1)
    survivors = tf.reshape(tf.gather(chunks, selected, batch_dims=1), [size, -1])
    places = tf.sort(tf.math.top_k(survivors, count)[1], axis=1)
    columns = tf.gather(selected, places // chunk, batch_dims=1) * chunk + places % chunk
    return tf.gather(survivors, places, batch_dims=1), first + columns


@tf.function(input_signature=[_MATRIX, _INDICES, _MATRIX, _INDICES], autograph=False)
def _merge(
    scores: tf.Tensor, indices: tf.Tensor, later_scores: tf.Tensor, later_indices: tf.Tensor
) -> tuple[tf.Tensor, tf.Tensor]:
    """The best of the candidates of earlier tiles and of a later one, ascending by index."""
    all_scores = tf.concat([scores, later_scores], axis=1)
    places = tf.sort(tf.math.top_k(all_scores, tf.shape(scores)[1])[1], axis=1)
    all_indices = tf.concat([indices, later_indices], axis=1)
    return tf.gather(all_scores, places, batch_dims=1), tf.gather(all_indices, places, batch_dims=1)


@tf.function(input_signature=[_MATRIX, _MATRIX, _INDICES, _INDEX_VECTOR, _INTEGER], autograph=False)
def _rank(
    queries: tf.Tensor, gallery: tf.Tensor, candidates: tf.Tensor, own: tf.Tensor, depth: tf.Tensor
) -> tuple[tf.Tensor, tf.Tensor]:
    """Ranks ascending candidates by squared difference: (indices, squared distances), both [b, depth]."""
    size = tf.shape(gallery)[0]
    rows = tf.gather(gallery, tf.minimum(candidates, size - 1))
    squared = tf.reduce_sum(tf.math.squared_difference(rows, queries[:, tf.newaxis]), axis=2)
    unwanted = (candidates >= size) | (candidates == own[:, tf.newaxis])
    squared = tf.where(unwanted, np.float32(np.inf), squared)
    negated, places = tf.math.top_k(-squared, depth)
    indices = tf.gather(candidates, places, batch_dims=1)
    return tf.where(tf.math.is_inf(negated), -1, indices), -negated


@tf.function(input_signature=[_MATRIX, _MATRIX, _INDICES], autograph=False)
def _nearest_member(
    queries: tf.Tensor, gallery: tf.Tensor, members: tf.Tensor
) -> tuple[tf.Tensor, tf.Tensor]:
    """Score [b] and gallery index [b] of the nearest listed row of each query."""
    rows = tf.gather(gallery, tf.maximum(members, 0))
    scores = tf.linalg.matvec(rows, 2.0 * queries) - tf.reduce_sum(tf.square(rows), axis=2)
    scores = tf.where(members < 0, _PADDING_SCORE, scores)
    place = tf.argmax(scores, axis=1, output_type=tf.int32)
    return tf.reduce_max(scores, axis=1), tf.gather(members, place, batch_dims=1)


@tf.function(input_signature=[_MATRIX, _MATRIX, _INTEGER, _VECTOR, _INDEX_VECTOR, _INDICES], autograph=False)
def _count_nearer(
    queries: tf.Tensor,
    tile: tf.Tensor,
    first: tf.Tensor,
    threshold: tf.Tensor,
    position: tf.Tensor,
    ignored: tf.Tensor,
) -> tf.Tensor:
    """Rows of a tile, int32 [b], that rank before (threshold, position) and are not ignored."""
    scores = _scores(queries, tile)
    width = tf.shape(tile)[1]
    earlier = first + tf.range(width) < position[:, tf.newaxis]
    threshold = threshold[:, tf.newaxis]
    nearer = (scores > threshold) | ((scores == threshold) & earlier)
    columns = ignored - first
    inside = (ignored >= 0) & (columns >= 0) & (columns < width)
    # Taken from the same comparison: a listed row can never rank before the nearest one because of rounding.
    listed = tf.gather(nearer, tf.clip_by_value(columns, 0, width - 1), batch_dims=1) & inside
    return _count_true(nearer) - _count_true(listed)


def _count_true(values: tf.Tensor) -> tf.Tensor:
    return tf.reduce_sum(tf.cast(values, tf.int32), axis=1)
