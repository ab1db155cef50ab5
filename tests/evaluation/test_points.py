"""Exact search: kinds of embeddings that float32 cannot rank, against float64."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ccp_dml.evaluation import bfloat16, evaluate_retrieval
from ccp_dml.evaluation.points import Points, norms
from ccp_dml.evaluation.search import nearest_neighbors

Generator = np.random.Generator


def around_one_centre(spread: float) -> Callable[[Generator, np.ndarray], np.ndarray]:
    return lambda rng, rows: around(rng, rows, spread, centres=1)


def around_many_centres(spread: float) -> Callable[[Generator, np.ndarray], np.ndarray]:
    return lambda rng, rows: around(rng, rows, spread, centres=10)


def around(rng: Generator, rows: np.ndarray, spread: float, centres: int) -> np.ndarray:
    """Rows around unit vectors."""
    middles = rng.standard_normal((centres, rows.shape[1]))
    middles /= np.linalg.norm(middles, axis=1, keepdims=True)
    return middles[rng.integers(0, centres, len(rows))] + spread * rows


def with_one_coordinate(value: float) -> Callable[[Generator, np.ndarray], np.ndarray]:
    def change(rng: Generator, rows: np.ndarray) -> np.ndarray:
        rows[len(rows) // 2, 0] = value
        return rows

    return change


# Each kind makes rows [N, D] of random numbers, and rows of normal numbers.
KINDS: dict[str, Callable[[Generator, np.ndarray], np.ndarray]] = {
    "ordinary": lambda rng, rows: rows,
    **{f"offset {offset:g}": lambda rng, rows, offset=offset: rows + offset for offset in (1e2, 1e5, 1e6)},
    **{f"one centre, spread {spread:g}": around_one_centre(spread) for spread in (1e-3, 1e-5, 1e-7)},
    **{f"many centres, spread {spread:g}": around_many_centres(spread) for spread in (1e-3, 1e-5, 1e-7)},
    **{
        f"scale {scale:g}": lambda rng, rows, scale=scale: rows * scale
        for scale in (1e-38, 1e-30, 1e-20, 1e20, 1e30, 3e37)
    },
    **{f"one coordinate {value:g}": with_one_coordinate(value) for value in (1e6, 1e30, -1e38)},
    "mixed norms": lambda rng, rows: rows * 10.0 ** rng.integers(-6, 7, (len(rows), 1)),
    "duplicates": lambda rng, rows: rows[rng.integers(0, len(rows) // 3, len(rows))],
    "equal rows": lambda rng, rows: np.ones_like(rows),
    "near ties": lambda rng, rows: (
        np.repeat(rows[: -(-len(rows) // 10)], 10, axis=0)[: len(rows)]
        * (1 + 1e-6 * rng.standard_normal((len(rows), 1)))
    ),
    "grid": lambda rng, rows: np.sign(rows),
}
SIZES = {"plane": (90, 2), "two stages": (900, 5), "wide": (700, 48)}


def make(kind: str, size: tuple[int, int], dtype: type) -> np.ndarray:
    rng = np.random.default_rng(len(kind) + size[0])
    return KINDS[kind](rng, rng.standard_normal(size)).astype(dtype)


def squared_distances(queries: np.ndarray, gallery: np.ndarray) -> np.ndarray:
    """In float64, of rows scaled by a power of two, so that no square leaves its range."""
    largest = max(np.abs(queries).max(), np.abs(gallery).max())
    scale = np.ldexp(1.0, -int(np.frexp(float(largest))[1]))
    return np.stack(
        [((gallery.astype(np.float64) - query) * scale) ** 2 for query in queries.astype(np.float64)]
    ).sum(axis=2)


def assert_nearest(indices: np.ndarray, squared: np.ndarray) -> None:
    """Checks that rows are the nearest, except where float64 itself cannot tell."""
    expected = np.argsort(squared, axis=1, kind="stable")[:, : indices.shape[1]]
    found = np.take_along_axis(squared, indices, axis=1)
    wanted = np.take_along_axis(squared, expected, axis=1)
    is_tie = np.abs(found - wanted) <= 1e-14 * wanted
    assert ((indices == expected) | is_tie).all()
    assert (np.sort(indices, axis=1)[:, 1:] > np.sort(indices, axis=1)[:, :-1]).all()


@pytest.mark.parametrize(
    "dtype, first_look",
    [(np.float32, False), (np.float64, True), pytest.param(np.float32, True, marks=pytest.mark.slow)],
)
@pytest.mark.parametrize("kind", KINDS)
def test_neighbours_are_those_of_float64(kind, dtype, first_look, monkeypatch):
    if first_look:
        monkeypatch.setattr(bfloat16, "_FEWEST_PAIRS", 0)
        monkeypatch.setattr(bfloat16, "_is_faster", lambda dimension: True)
    for size, memory in ((SIZES["plane"], 2**28), (SIZES["two stages"], 300_000), (SIZES["wide"], 2**28)):
        rows = make(kind, size, dtype)
        squared = squared_distances(rows, rows)
        np.fill_diagonal(squared, np.inf)
        indices, distances = nearest_neighbors(rows, k=4, memory_bytes=memory)
        assert_nearest(indices, squared)
        exact = [
            np.sqrt(((rows[line].astype(np.float64) - rows[q]) ** 2).sum(1)) for q, line in enumerate(indices)
        ]
        np.testing.assert_allclose(
            distances, np.minimum(exact, np.finfo(np.float32).max), rtol=1e-6, atol=1e-44
        )


@pytest.mark.parametrize("memory", [2**28, 250_000], ids=["one tile", "several tiles"])
@pytest.mark.parametrize("kind", KINDS)
def test_ranks_beyond_the_search_are_those_of_float64(kind, memory):
    rows = make(kind, (600, 6), np.float32)
    labels = np.random.default_rng(0).integers(0, 150, 600)
    found = evaluate_retrieval(rows, labels, recall_at=(1, 20, 200), memory_bytes=memory)
    squared = squared_distances(rows, rows)
    np.fill_diagonal(squared, np.inf)
    is_same = labels[:, np.newaxis] == labels
    np.fill_diagonal(is_same, False)
    for query in np.flatnonzero(is_same.any(axis=1)):
        line = squared[query]
        position = np.argmin(np.where(is_same[query], line, np.inf))
        nearer = line < line[position] * (1 - 1e-14)
        equal = (np.abs(line - line[position]) <= 1e-14 * line[position]) & (np.arange(600) < position)
        least, most = 1 + nearer.sum(), 1 + (nearer | equal).sum()
        for k, values in found.recall_at_k.items():
            assert values[query] in (float(least <= k), float(most <= k))


def pairs_in_the_plane(offset: float) -> tuple[np.ndarray, np.ndarray]:
    """Ten pairs, 1 apart, the pairs 10 apart."""
    x = np.repeat(10.0 * np.arange(10), 2)
    y = np.tile([0.0, 1.0], 10)
    return (np.stack([x, y], axis=1) + offset).astype(np.float32), np.repeat(np.arange(10), 2)


def tight_groups(spread: float) -> tuple[np.ndarray, np.ndarray]:
    """Classes of ten rows in groups that are ten times as tight as all rows together."""
    rng = np.random.default_rng(0)
    centre = rng.standard_normal(128)
    groups = rng.standard_normal((100, 128))
    rows = np.repeat(groups, 10, axis=0) + 0.1 * rng.standard_normal((1000, 128))
    return (centre / np.linalg.norm(centre) + spread * rows).astype(np.float32), np.repeat(np.arange(100), 10)


def small_triangles(norm: float) -> tuple[np.ndarray, np.ndarray]:
    corners = np.repeat(np.array([[1.0, 0.0], [0.0, 1.0], [-1.0, -1.0]]), 3, axis=0)
    jitter = 0.1 * np.random.default_rng(0).standard_normal((9, 2))
    return (norm * (corners + jitter)).astype(np.float32), np.repeat(np.arange(3), 3)


@pytest.mark.parametrize(
    "rows, labels",
    [
        *map(pairs_in_the_plane, (0.0, 1e5, -3e5, 1e6)),
        *map(tight_groups, (3e-5, 1e-5, 1e-6)),
        *map(small_triangles, (1e-20, 1e-30, 1e-37, 1e30, 1e37)),
    ],
)
def test_separated_classes_are_found_whatever_their_place_and_size(rows, labels):
    means = evaluate_retrieval(rows, labels).means()
    assert (means["precision_at_1"], means["map_at_r"]) == (1.0, 1.0)


@settings(max_examples=40, deadline=None, derandomize=True)
@given(
    seed=st.integers(0, 10**6),
    dimension=st.integers(1, 40),
    size=st.integers(20, 300),
    offset=st.sampled_from([0.0, 1.0, 1e3, 1e6]),
    exponent=st.integers(-35, 30),
    steps=st.integers(1, 6),
)
def test_queries_in_a_gallery_of_any_scale_and_offset(seed, dimension, size, offset, exponent, steps):
    # Few steps make many ties; the last column tells the rest apart by as little as float32 can.
    rng = np.random.default_rng(seed)
    gallery = rng.integers(0, steps, (size, dimension)) + offset
    gallery[:, -1] *= 1 + 2.0**-23 * rng.integers(-3, 4, size)
    gallery, scale = gallery.astype(np.float32), np.float32(10.0**exponent)
    queries = gallery[rng.integers(0, size, 15)] + rng.integers(0, 2, (15, dimension)).astype(np.float32)
    queries, gallery = queries * scale, gallery * scale
    indices, _ = nearest_neighbors(queries, gallery, k=5)
    assert_nearest(indices, squared_distances(queries, gallery))


@settings(max_examples=40, deadline=None, derandomize=True)
@given(seed=st.integers(0, 10**6), kind=st.sampled_from(sorted(KINDS)), dimension=st.integers(1, 70))
def test_bounds_hold_for_float32_arithmetic(seed, kind, dimension):
    rows = make(kind, (120 + seed % 7, dimension), np.float32)
    queries, gallery = rows[:20], rows[20:]
    points = Points(queries, gallery)
    q, g = points.rounded_queries(slice(None)), points.rounded_gallery.numpy()
    exact = np.stack([points.squared_distances(np.full(len(g), i), np.arange(len(g))) for i in range(20)])
    scores = np.float32(2) * q @ g.T - np.square(g).sum(axis=1)
    errors = np.abs(np.square(norms(q))[:, np.newaxis] - scores - exact)
    assert (errors <= points.score_errors(norms(q))[:, np.newaxis]).all()
    squared = np.square(q[:, np.newaxis] - g).sum(axis=2)
    order = np.argsort(squared, axis=1, kind="stable")
    sorted_rows, most = points.sort(
        np.arange(20), norms(q), order.astype(np.int32), np.take_along_axis(squared, order, axis=1)
    )
    in_order = np.take_along_axis(exact, sorted_rows, axis=1)
    assert (in_order[:, :-1] <= in_order[:, 1:]).all()
    assert (np.maximum.accumulate(in_order, axis=1) <= most).all()


def test_large_labels_and_ids_of_different_types_are_compared_exactly():
    large = 2**53
    embeddings = np.array([[0.0], [1.0], [5.0], [6.0]])
    labels = np.array([large, large, large + 1, large + 1])
    found = evaluate_retrieval(embeddings, labels, None, embeddings + 0.1, labels.astype(np.uint64))
    assert found.num_positives.tolist() == [2, 2, 2, 2]
    ids = np.arange(4) + large
    indices, _ = nearest_neighbors(
        embeddings, embeddings, k=1, query_ids=ids, gallery_ids=ids.astype(np.uint64)
    )
    assert indices[:, 0].tolist() == [1, 0, 3, 2]
