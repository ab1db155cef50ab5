"""Neighbours against stable sorts and scikit-learn, ties, and the memory of blocks."""

from __future__ import annotations

import numpy as np
import pytest
import tensorflow as tf
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.neighbors import NearestNeighbors

from ccp_dml.evaluation import kernels
from ccp_dml.evaluation.blocks import plan_search
from ccp_dml.evaluation.search import nearest_neighbors


def sorted_neighbors(queries, gallery, k, own=None):
    """Stable sort of exact squared distances."""
    squared = ((queries[:, np.newaxis].astype(np.float64) - gallery) ** 2).sum(axis=2)
    if own is not None:
        squared[np.arange(len(queries)), own] = np.inf
    order = np.argsort(squared, axis=1, kind="stable")[:, :k]
    return order, np.sqrt(np.take_along_axis(squared, order, axis=1))


@settings(max_examples=25, deadline=None, derandomize=True)
@given(
    seed=st.integers(0, 10**6),
    size=st.integers(2, 1200),
    k=st.integers(1, 12),
    levels=st.integers(1, 4),
    memory=st.sampled_from([60_000, 400_000, 2**28]),
)
def test_neighbours_equal_a_stable_sort_for_all_ties_and_blocks(seed, size, k, levels, memory):
    # A grid of few levels: float32 is exact, most distances tie, many rows are equal.
    rng = np.random.default_rng(seed)
    embeddings = rng.integers(0, levels + 1, (size, 4)).astype(np.float32)
    k = min(k, size - 1)
    indices, distances = nearest_neighbors(embeddings, k=k, memory_bytes=memory)
    expected, expected_distances = sorted_neighbors(embeddings, embeddings, k, np.arange(size))
    np.testing.assert_array_equal(indices, expected)
    np.testing.assert_allclose(distances, expected_distances, rtol=1e-6)


def test_the_small_bounds_of_these_tests_reach_every_branch():
    assert plan_search(1200, 1200, 4, 2, 60_000).gallery < 800  # several tiles
    assert plan_search(1200, 1200, 4, 2, 2**28).chunk > 0  # two stages
    assert plan_search(1200, 1200, 4, 2, 400_000).queries < 1200  # several blocks
    assert plan_search(100, 100, 4, 12, 2**28).chunk == 0  # plain top-k


# With these seeds, the distances of neighbours differ by more than the rounding of float32.
@pytest.mark.parametrize("dimension, seed", [(5, 5), (128, 133)])
def test_agrees_with_scikit_learn(dimension, seed):
    rng = np.random.default_rng(seed)
    gallery = rng.standard_normal((1500, dimension)).astype(np.float32)
    queries = rng.standard_normal((40, dimension)).astype(np.float32)
    expected_distances, expected = NearestNeighbors(algorithm="brute").fit(gallery).kneighbors(queries, 9)
    indices, distances = nearest_neighbors(queries, gallery, k=9)
    np.testing.assert_array_equal(indices, expected)
    np.testing.assert_allclose(distances, expected_distances, rtol=1e-5)


def test_neighbours_are_ordered_within_the_rounding_of_the_expanded_square():
    # A large common offset, as in raw features: |g|^2 is 1e8, and its rounding exceeds the squared distances.
    rng = np.random.default_rng(0)
    embeddings = (1000 + np.round(rng.standard_normal((12, 100)) * 64) / 64).astype(np.float32)
    indices, _ = nearest_neighbors(embeddings, k=4)
    expected, _ = sorted_neighbors(embeddings, embeddings, 4, np.arange(12))
    np.testing.assert_array_equal(indices, expected)


def test_ids_exclude_the_query_but_not_its_copies():
    gallery = np.array([[0.0], [0.0], [1.0]], np.float32)
    indices, distances = nearest_neighbors(gallery[:1], gallery, k=2, query_ids=[8], gallery_ids=[8, 9, 7])
    assert indices.tolist() == [[1, 2]]
    assert distances.tolist() == [[0.0, 1.0]]
    indices, _ = nearest_neighbors(gallery[:1], gallery, k=2, query_ids=[6], gallery_ids=[8, 9, 7])
    assert indices.tolist() == [[0, 1]]


def test_a_short_gallery_leaves_the_rest_empty():
    indices, distances = nearest_neighbors(np.array([[0.0], [2.0]]), k=3)
    assert indices.tolist() == [[1, -1, -1], [0, -1, -1]]
    assert distances[:, 0].tolist() == [2.0, 2.0]
    assert np.isinf(distances[:, 1:]).all()


@pytest.mark.parametrize("k", [0, -1, 1.5, 2.0, "3", None, np.float32(4)])
def test_k_must_be_a_positive_whole_number(k):
    with pytest.raises(ValueError, match="^k is .*; expected a whole number of at least 1$"):
        nearest_neighbors(np.zeros((3, 2)), k=k)


def test_one_trace_serves_all_shapes():
    def traces() -> list[int]:
        chunks = kernels.choose_from_chunks[tf.float32]
        functions = (kernels.score, kernels.best_of_rows, chunks, kernels.merge, kernels.rank)
        return [function.experimental_get_tracing_count() for function in functions]

    rng = np.random.default_rng(0)
    for size, dimension, k, memory in ((50, 3, 2, 2**28), (1500, 5, 3, 2**28), (1500, 6, 2, 60_000)):
        nearest_neighbors(rng.standard_normal((size, dimension)), k=k, memory_bytes=memory)
    assert max(traces()) == 1


def intermediate_bytes(function, *arguments) -> list[int]:
    """Bytes of every tensor that a function makes, from its graph with fixed shapes."""
    specs = [a for a in arguments if isinstance(a, tf.TensorSpec)]
    constants = [a for a in arguments if not isinstance(a, tf.TensorSpec)]
    function = getattr(function, "python_function", function)
    graph = tf.function(lambda *inputs: function(*inputs, *constants), autograph=False)
    sizes = []
    for operation in graph.get_concrete_function(*specs).graph.get_operations():
        if operation.type in ("Placeholder", "Reshape", "Identity"):  # inputs and views
            continue
        for output in operation.outputs:
            assert output.shape.is_fully_defined(), operation
            sizes.append(output.shape.num_elements() * output.dtype.size)
    return sizes


@pytest.mark.parametrize(
    "queries, gallery, dimension, depth, memory",
    [
        (62_000, 62_000, 128, 11, 2**28),
        (62_000, 62_000, 512, 11, 2**26),
        (5_924, 5_924, 512, 60, 2**28),
        (10_000, 1_000_000, 128, 10, 2**28),
        (10_000, 10_000, 64, 999, 2**28),
        (30, 3_000_000, 8, 1, 2**24),
    ],
)
def test_all_intermediate_tensors_of_a_block_fit_the_bound_together(
    queries, gallery, dimension, depth, memory
):
    plan = plan_search(queries, gallery, dimension, depth, memory)
    block = tf.TensorSpec([plan.queries, dimension])
    tile, first = tf.TensorSpec([plan.gallery, dimension + 1]), tf.TensorSpec([], tf.int32)
    scores = tf.TensorSpec([plan.queries, plan.gallery])
    found = tf.TensorSpec([plan.queries, plan.candidates])
    found_indices = tf.TensorSpec([plan.queries, plan.candidates], tf.int32)
    sizes = intermediate_bytes(kernels.score, block, tile)
    if plan.chunk:
        sizes += intermediate_bytes(kernels.best_of_chunks, scores, first, plan.candidates, plan.chunk)
    else:
        sizes += intermediate_bytes(kernels.best_of_rows, scores, first, plan.candidates)
    left_out = tf.TensorSpec([plan.queries])
    sizes += intermediate_bytes(kernels.merge, found, found_indices, left_out, found, found_indices, left_out)
    rows, own = tf.TensorSpec([gallery, dimension]), tf.TensorSpec([plan.queries], tf.int32)
    sizes += intermediate_bytes(kernels.rank, block, rows, found_indices, own)
    assert max(sizes) <= sum(sizes) <= memory
    assert sum(sizes) >= memory / 8 or plan.queries == 512 or queries < 512  # the bound is used
