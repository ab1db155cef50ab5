"""Exact nearest neighbours, block by block.

A block of queries meets a tile of the gallery in one float32 product. The largest scores of a row are found
in two stages: the k best lie in the k chunks with the largest maxima, because each of these chunks holds an
element that is at least as good as any element of the other chunks. So one maximum over chunks and a top-k
over k short chunks replace a top-k over the complete row. The survivors are then ranked by their differences,
which have none of the cancellation in `|g|^2 - 2 q.g`.

The result is that of float64. `points` bounds what rounding changes: candidates whose order it leaves open
are sorted in float64, and a query whose neighbours may be among the rows that were left out is compared in
float64 with all rows that are not provably too far.

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
from ccp_dml.evaluation.blocks import DEFAULT_MEMORY_BYTES, BlockPlan, plan_search, slices
from ccp_dml.evaluation.inputs import Floats, Ints, as_embeddings, as_whole_number, find_self_rows
from ccp_dml.evaluation.kernels import Candidates, full_float32
from ccp_dml.evaluation.points import Points, norms
from ccp_dml.evaluation.ranks import Neighbors, count_nearer


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
        queries: float [Q, D]. Float64 is compared in float64, other types in float32.
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

    Example:
        >>> indices, distances = nearest_neighbors(np.array([[0.0], [1.0], [5.0]]), k=2)
        >>> indices.tolist()
        [[1, 2], [0, 2], [1, 0]]
        >>> distances[0].tolist()
        [1.0, 5.0]
    """
    k = as_whole_number(k, "k")
    queries = as_embeddings(queries, "queries")
    rows = queries if gallery is None else as_embeddings(gallery, "gallery")
    num_gallery = None if gallery is None else len(rows)
    self_rows = find_self_rows(len(queries), num_gallery, query_ids, gallery_ids)
    search = Search(queries, rows, self_rows, memory_bytes)
    indices = np.full((len(queries), k), -1, np.int32)
    distances = np.full((len(queries), k), np.inf, np.float32)
    for found in search.neighbors(k):
        depth = found.indices.shape[1]
        indices[found.queries, :depth] = found.indices
        distances[found.queries, :depth] = search.distances(found.queries, found.indices)
        del found  # Frees its scores before those of the next block are made.
    return indices, distances


class Search:
    """Neighbours and ranks of queries in a gallery."""

    def __init__(self, queries: Floats, gallery: Floats, self_rows: Ints, memory_bytes: int) -> None:
        """Rounds the gallery.

        Args:
            queries: float32 or float64 [Q, D], checked.
            gallery: float32 or float64 [G, D], checked.
            self_rows: int32 [Q], gallery index of the query itself, or -1.
            memory_bytes: bound on the working memory.
        """
        self._points, self._self_rows, self._memory_bytes = Points(queries, gallery), self_rows, memory_bytes

    def neighbors(self, depth: int) -> Iterator[Neighbors]:
        """Yields the `depth` neighbours of all queries, block by block, in no particular order."""
        points = self._points
        size = len(points.queries)
        depth = min(depth, len(points.gallery))
        plan = self._plan(size, depth)
        is_found = np.zeros(size, np.bool_)
        for found in bfloat16.first_look(points, self._self_rows, depth, self._memory_bytes):
            is_found[found.queries] = True
            yield found
            del found
        remaining = np.flatnonzero(~is_found)
        tiles = self._tiles(plan.gallery) if len(remaining) else []
        for block in slices(len(remaining), plan.queries):
            found = self._search_block(remaining[block], tiles, plan, depth)
            yield found
            del found  # Frees its scores before those of the next block are made.

    def nearest_member_ranks(self, queries: Ints, members: Ints) -> Ints:
        """Ranks the nearest of each query's listed gallery rows by counting the rows that are nearer.

        Takes one product and one comparison per gallery row whatever the rank; the cost of a top-k would grow
        with it.

        Args:
            queries: int [n], indices of the queries.
            members: int32 [n, M], gallery indices without the query itself, ascending, -1 for none; no list
                is empty.

        Returns:
            Ranks from 1, int64 [n].
        """
        plan = self._plan(len(queries), 1)
        tiles = self._tiles(plan.gallery)
        ranks = np.ones(len(queries), np.int64)
        for block in slices(len(queries), plan.queries):
            chosen = queries[block]
            embeddings = tf.constant(self._points.rounded_queries(chosen))
            for first, tile in tiles:
                with full_float32():
                    scores = kernels.score(embeddings, tile)
                lines = np.arange(len(chosen))
                ranks[block] += self._count_nearer(scores, int(first), chosen, lines, members[block])
                del scores
        return ranks

    def distances(self, queries: Ints, rows: Ints) -> Floats:
        """Returns the distances of gallery rows, float32 [n, k], infinite for row -1.

        Args:
            queries: int [n], indices of the queries.
            rows: int32 [n, k], gallery rows of each query, or -1.
        """
        squared = self._points.squared_distances(np.repeat(queries, rows.shape[1]), rows.ravel())
        found = np.sqrt(squared.reshape(rows.shape)) / self._points.scale
        # A row that is too far for a float32 is there all the same.
        return np.where(rows < 0, np.inf, np.minimum(found, np.finfo(np.float32).max)).astype(np.float32)

    def _plan(self, num_queries: int, depth: int) -> BlockPlan:
        size, dimension = self._points.gallery.shape
        return plan_search(num_queries, size, dimension, depth, self._memory_bytes)

    def _tiles(self, size: int) -> list[tuple[np.int32, tf.Tensor]]:
        """Cuts the gallery into pairs of the first row and a tile [size, D + 1]."""
        # Made by TensorFlow: of an array given to it, a second copy lives until the next operation.
        rows = self._points.rounded_gallery
        starts = range(0, len(rows), size)
        return [(np.int32(first), kernels.as_tile(rows[first : first + size], size)) for first in starts]

    def _search_block(
        self, chosen: Ints, tiles: list[tuple[np.int32, tf.Tensor]], plan: BlockPlan, depth: int
    ) -> Neighbors:
        """Finds the neighbours of the chosen queries."""
        points = self._points
        rounded = points.rounded_queries(chosen)
        embeddings, query_norms = tf.constant(rounded), norms(rounded)
        best = None
        with full_float32():
            for first, tile in tiles:
                scores = kernels.score(embeddings, tile)
                later = _candidates(scores, tf.constant(first), plan)
                best = later if best is None else kernels.merge(*best, *later)
            assert best is not None
            self_rows = tf.constant(self._self_rows[chosen])
            ranked = kernels.rank(embeddings, points.rounded_gallery, best[1], self_rows)
        rows, squared = (values.numpy() for values in ranked)
        rows, most = points.sort(chosen, query_norms, rows, squared)
        left_out = best[2].numpy().astype(np.float64)
        nearest_left_out = query_norms**2 - left_out - points.score_errors(query_norms)
        is_proven = (most[:, depth - 1] < nearest_left_out) | (left_out == np.float32(kernels.PADDING_SCORE))
        indices = rows[:, :depth]
        open_lines = np.flatnonzero(~is_proven)
        if open_lines.size:
            indices[open_lines] = self._compare_all(chosen[open_lines], indices[open_lines], tiles)
        # With several tiles, the scores of the first ones are gone.
        bounds = functools.partial(self._rank_bounds, scores, chosen) if len(tiles) == 1 else None
        return Neighbors(chosen, indices, bounds)

    def _compare_all(self, chosen: Ints, rows: Ints, tiles: list[tuple[np.int32, tf.Tensor]]) -> Ints:
        """Finds neighbours in float64, among all gallery rows that are not provably too far.

        Args:
            chosen: int [n], indices of queries.
            rows: int32 [n, depth], gallery rows that may not be the nearest, or -1.
            tiles: see `_tiles`.
        """
        points, depth = self._points, rows.shape[1]
        rounded = points.rounded_queries(chosen)
        query_norms = norms(rounded)
        reach = query_norms**2 - points.score_errors(query_norms)
        squared = points.squared_distances(np.repeat(chosen, depth), rows.ravel()).reshape(rows.shape)
        # No neighbour is farther than the farthest of any `depth` rows.
        farthest = squared.max(axis=1)
        nearest = [(np.empty(0), np.empty(0, np.int32)) for _ in chosen]
        embeddings = tf.constant(rounded)
        for first, tile in tiles:
            with full_float32():
                scores = np.asarray(memoryview(kernels.score(embeddings, tile)))
            lowest = np.nextafter((reach - farthest).astype(np.float32), np.float32(-np.inf))
            for line, query in enumerate(chosen):
                near = first + np.flatnonzero(scores[line] >= lowest[line]).astype(np.int32)
                near = near[(near < len(points.gallery)) & (near != self._self_rows[query])]
                exact = points.squared_distances(np.full(len(near), query), near)
                exact, near = np.append(nearest[line][0], exact), np.append(nearest[line][1], near)
                order = np.lexsort((near, exact))[:depth]
                nearest[line] = exact[order], near[order]
                if len(order) == depth:
                    farthest[line] = min(farthest[line], exact[order[-1]])
        found = np.full(rows.shape, -1, np.int32)
        for line, (_, near) in enumerate(nearest):
            found[line, : len(near)] = near
        return found

    def _rank_bounds(
        self,
        scores: tf.Tensor,
        chosen: Ints,
        positions: Ints,
        members: Ints,
        beyond: int,
        ks: Sequence[int],
    ) -> tuple[Ints, Ints]:
        """See `ranks.Neighbors`; the first two arguments are of the block."""
        ranks = 1 + self._count_nearer(scores, 0, chosen[positions], positions, members)
        return ranks, ranks

    def _count_nearer(self, scores: tf.Tensor, first: int, queries: Ints, lines: Ints, members: Ints) -> Ints:
        """See `ranks.count_nearer`."""
        # Unlike `numpy()`, a view does not copy.
        view = np.asarray(memoryview(scores))
        return count_nearer(self._points, view, first, queries, lines, members, self._self_rows[queries])


def _candidates(scores: tf.Tensor, first: tf.Tensor, plan: BlockPlan) -> Candidates:
    """The best scores of a tile and their gallery indices."""
    count = tf.constant(plan.candidates)
    if plan.chunk:
        return kernels.best_of_chunks(scores, first, count, plan.chunk)
    return kernels.best_of_rows(scores, first, count)
