"""The first look in bfloat16: its bounds hold, and it finds the same neighbours as float32."""

from __future__ import annotations

import threading
import weakref

import numpy as np
import pytest
import tensorflow as tf
from hypothesis import given, settings
from hypothesis import strategies as st

from ccp_dml.evaluation import bfloat16, blocks, evaluate_retrieval, kernels
from ccp_dml.evaluation.blocks import BlockPlan, plan_search
from ccp_dml.evaluation.points import Points
from ccp_dml.evaluation.ranks import rank_bounds_by_coarse_score
from ccp_dml.evaluation.search import nearest_neighbors
from tests.evaluation.test_search import intermediate_bytes

machine_score = bfloat16.score


@tf.function(
    input_signature=[tf.TensorSpec([None, None]), tf.TensorSpec([None, None], tf.bfloat16)], autograph=False
)
def emulated_score(queries, tile):
    """The product of bfloat16 numbers whose sums are in float32, as `score` takes it from a matrix unit."""
    ones = tf.ones([tf.shape(queries)[0], 3], tf.bfloat16)
    block = tf.concat([tf.cast(2.0 * queries, tf.bfloat16), ones], axis=1)
    columns = tf.cast(tile[:, : tf.shape(block)[1]], tf.float32)
    return tf.cast(tf.matmul(tf.cast(block, tf.float32), columns, transpose_b=True), tf.bfloat16)


@pytest.fixture(autouse=True)
def emulated(monkeypatch: pytest.MonkeyPatch) -> None:
    """Replaces the product of the processor in all tests."""
    monkeypatch.setattr(bfloat16, "score", emulated_score)


@pytest.fixture
def always(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """Takes a first look at everything; records the share of proven queries of each block."""
    shares = []
    search = bfloat16.CoarseGallery.search

    def search_and_record(coarse, self_rows, block, depth):
        found = search(coarse, self_rows, block, depth)
        shares.append(len(found.queries) / len(self_rows[block]))
        return found

    monkeypatch.setattr(bfloat16, "_FEWEST_PAIRS", 0)
    monkeypatch.setattr(bfloat16, "_is_faster", lambda dimension: True)
    monkeypatch.setattr(blocks, "_MIN_QUERIES", {4: 32, 2: 32})  # several tiles even of small sets
    monkeypatch.setattr(bfloat16.CoarseGallery, "search", search_and_record)
    return shares


def clustered(size: int, dimension: int, scale: float, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Embeddings of classes of about five images, of norms that differ, and labels."""
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, max(1, size // 5), size)
    centres = rng.standard_normal((labels.max() + 1, dimension))
    embeddings = centres[labels] + 0.7 * rng.standard_normal((size, dimension))
    return (scale * embeddings).astype(np.float32), labels


@pytest.mark.parametrize("memory", [2_130_000, 2**28], ids=["several tiles", "one tile"])
@pytest.mark.parametrize("dimension, scale", [(5, 1.0), (64, 1e-3), (64, 30.0)])
def test_the_first_look_and_float32_find_the_same_neighbours(always, dimension, scale, memory, monkeypatch):
    embeddings, _ = clustered(3000, dimension, scale)
    assert (bfloat16.plan(3000, 3000, dimension, 6, memory).gallery < 3000) == (memory < 2**28)
    indices, distances = nearest_neighbors(embeddings, k=6, memory_bytes=memory)
    assert max(always) > 0.9
    monkeypatch.setattr(bfloat16, "plan", lambda *_: None)
    expected, expected_distances = nearest_neighbors(embeddings, k=6, memory_bytes=memory)
    np.testing.assert_array_equal(indices, expected)
    np.testing.assert_array_equal(distances, expected_distances)


@settings(max_examples=25, deadline=None, derandomize=True)
@given(
    seed=st.integers(0, 10**6), dimension=st.integers(1, 70), scale=st.sampled_from([3e-17, 1e-6, 1.0, 1e4])
)
def test_no_row_is_nearer_than_the_bound_of_its_score(seed, dimension, scale):
    check_bounds(clustered(300, dimension, scale, seed)[0])


def check_bounds(embeddings: np.ndarray) -> None:
    queries, rows = embeddings[:20], embeddings[20:]
    tile, largest = bfloat16.as_tile(tf.constant(rows), tf.constant(len(rows)))
    scores = tf.cast(bfloat16.score(tf.constant(queries), tile), tf.float32).numpy()
    squared = ((queries[:, np.newaxis].astype(np.float64) - rows) ** 2).sum(axis=2)
    for column in range(0, len(rows), 7):
        bounds = bfloat16.least_distances(tf.constant(queries), tf.constant(scores[:, column]), largest)
        no_better = scores <= scores[:, column, np.newaxis]
        assert (np.where(no_better, squared, np.inf).min(axis=1) >= bounds.numpy()).all()


def test_a_common_offset_does_not_prevent_proofs(always):
    embeddings, _ = clustered(1500, 16, 1.0)
    indices, _ = nearest_neighbors(embeddings + 64.0, k=3)
    assert min(always) > 0.9
    squared = ((embeddings[:50, np.newaxis].astype(np.float64) - embeddings) ** 2).sum(axis=2)
    squared[np.arange(50), np.arange(50)] = np.inf
    np.testing.assert_array_equal(indices[:50], np.argsort(squared, axis=1)[:, :3])


def test_queries_with_equal_neighbours_are_searched_in_float32(always):
    # No bound separates equal rows; the smaller index goes first.
    embeddings, _ = clustered(1400, 16, 1.0)
    embeddings = np.concatenate([embeddings, np.repeat(embeddings[:1], 100, axis=0)])
    indices, distances = nearest_neighbors(embeddings, k=3)
    assert 0.0 < min(always) < 1.0
    assert indices[0].tolist() == [1400, 1401, 1402]
    assert indices[1450].tolist() == [0, 1400, 1401]
    assert not distances[0].any()


def test_the_first_look_ends_early_in_a_collapsed_gallery(always):
    embeddings = np.ones((1500, 8), np.float32)
    embeddings[0] += 1.0
    indices, _ = nearest_neighbors(embeddings, k=2, memory_bytes=2**21)
    assert bfloat16.plan(1500, 1500, 8, 2, 2**21).queries < 1500 / 8
    # The next blocks are begun before the result of the first one is known.
    assert 0 < len(always) <= 1 + bfloat16.THREADS
    assert not any(always)
    assert indices[-1].tolist() == [1, 2]


def test_the_first_look_and_float32_give_the_same_metrics_at_every_depth(always, monkeypatch):
    embeddings, labels = clustered(3000, 24, 1.0)
    asked = {"recall_at": (1, 3, 10, 30, 100, 1000), "map_at": (5,)}
    found = evaluate_retrieval(embeddings, labels, **asked)
    assert min(always) > 0.9
    monkeypatch.setattr(bfloat16, "plan", lambda *_: None)
    expected = evaluate_retrieval(embeddings, labels, **asked)
    np.testing.assert_array_equal(found.columns(), expected.columns())
    assert 0.0 < np.nanmean(expected.recall_at_k[30]) < np.nanmean(expected.recall_at_k[1000]) <= 1.0


def test_ranks_are_within_their_bounds():
    embeddings, labels = clustered(400, 12, 1.0)
    rows, queries = tf.constant(embeddings), tf.constant(embeddings[:60])
    tile, largest = bfloat16.as_tile(rows, tf.constant(400))
    own = np.arange(60, dtype=np.int32)
    members = np.full((60, 40), -1, np.int32)
    for query in own:
        same = np.setdiff1d(np.flatnonzero(labels == labels[query]), [query])
        members[query, : max(1, len(same))] = same if len(same) else [399]
    squared = ((embeddings[:60, np.newaxis].astype(np.float64) - embeddings) ** 2).sum(axis=2)
    squared[own, own] = np.inf
    exact = [
        1 + np.sum(line < min(line[row] for row in listed if row >= 0))
        for line, listed in zip(squared, members)
    ]
    nearest = np.array(
        [
            np.square(embeddings[q]).sum() - squared[q, line[line >= 0]].min()
            for q, line in enumerate(members)
        ],
        np.float32,
    )
    scores = bfloat16.score(queries, tile)
    error = bfloat16.errors(queries, largest).numpy()
    every = range(1, 400)
    least, most = rank_bounds_by_coarse_score(scores, own, members, own, nearest, error, 0, every)
    assert (least <= exact).all()
    assert (exact <= most).all()
    assert (most - least).mean() < 10
    wide, same = rank_bounds_by_coarse_score(scores, own, members, own, nearest, error, 0, (50, 200))
    np.testing.assert_array_equal(same, most)
    np.testing.assert_array_equal(np.searchsorted((50, 200), wide), np.searchsorted((50, 200), least))
    assert (wide < least).any()


def test_the_first_look_is_taken_where_it_pays(monkeypatch):
    monkeypatch.setattr(bfloat16, "_is_faster", lambda dimension: dimension > 4)
    assert bfloat16.plan(20_000, 20_000, 8, 3, 2**28) is not None
    assert bfloat16.plan(1_000, 20_000, 8, 3, 2**28) is None
    assert bfloat16.plan(20_000, 20_000, 4, 3, 2**28) is None
    assert bfloat16.plan(20_000, 20_000, 8, 3, 1_000) is None  # no room
    assert bfloat16.plan(20_000, 20_000, 8, 9_000, 2**28) is None  # one stage


@pytest.mark.parametrize("seconds", [(1.0, 2.0), (2.0, 1.0)])
def test_the_faster_type_is_chosen(seconds, monkeypatch):
    measured = iter(seconds)
    monkeypatch.setattr(bfloat16, "_least_seconds", lambda call: [call(), next(measured)][1])
    assert bfloat16._is_faster.__wrapped__(8) == (seconds[0] < seconds[1])


@pytest.mark.parametrize("dimension", [64, 512])
@pytest.mark.parametrize("fault", ["sums", "truncation"])
def test_there_is_no_first_look_on_a_machine_that_does_not_add_in_float32(fault, dimension, monkeypatch):
    def sums_in_bfloat16(queries, tile):
        parts = tf.split(tile, tile.shape[1] // 32, axis=1)
        block = tf.cast(tf.pad(2.0 * queries, [[0, 0], [0, 32]], constant_values=1.0), tf.bfloat16)
        blocks = tf.split(block, len(parts), axis=1)
        return tf.add_n([tf.matmul(q, part, transpose_b=True) for q, part in zip(blocks, parts)])

    def truncated(queries, tile):
        bits = tf.bitcast(kernels.score(queries, tf.cast(tile[:, : dimension + 1], tf.float32)), tf.uint32)
        kept = tf.bitwise.right_shift(bits, tf.constant(16, tf.uint32))
        return tf.bitcast(tf.cast(kept, tf.uint16), tf.bfloat16)

    assert would_be_taken(monkeypatch, dimension)
    monkeypatch.setattr(bfloat16, "score", sums_in_bfloat16 if fault == "sums" else truncated)
    assert not would_be_taken(monkeypatch, dimension)


def would_be_taken(monkeypatch: pytest.MonkeyPatch, dimension: int) -> bool:
    """True if a first look that is faster is taken."""
    seconds = iter([1.0, 2.0])
    monkeypatch.setattr(bfloat16, "_least_seconds", lambda call: next(seconds))
    return bfloat16._is_faster.__wrapped__(dimension)


@pytest.mark.parametrize("dimension", [5, 64, 512])
def test_the_bound_holds_for_the_product_of_this_machine_if_it_passes_the_check(dimension, monkeypatch):
    monkeypatch.setattr(bfloat16, "score", machine_score)
    if not would_be_taken(monkeypatch, dimension):
        pytest.skip("the product of this machine does not add up in float32")
    check_bounds(clustered(300, dimension, 1.0)[0])


def test_squares_that_underflow_prove_nothing(always, monkeypatch):
    monkeypatch.setattr(bfloat16, "_FEWEST_PROVEN", 0.0)
    rng = np.random.default_rng(1)
    gallery = rng.standard_normal((1500, 2))
    gallery *= 3e-17 * (1 + 2e-3 * rng.random((1500, 1))) / np.linalg.norm(gallery, axis=1, keepdims=True)
    gallery, queries = gallery.astype(np.float32), (6e-18 * rng.standard_normal((100, 2))).astype(np.float32)
    squared = ((queries[:, np.newaxis].astype(np.float64) - gallery) ** 2).sum(axis=2)
    indices, _ = nearest_neighbors(queries, gallery, k=5)
    assert always
    found = np.take_along_axis(squared, indices, axis=1)
    np.testing.assert_allclose(found, np.sort(squared, axis=1)[:, :5], rtol=1e-5)


@pytest.mark.parametrize("ahead", [True, False])
def test_few_blocks_of_scores_exist_at_the_same_time(ahead, monkeypatch):
    monkeypatch.setattr(bfloat16, "_FEWEST_PAIRS", 0 if ahead else np.inf)
    monkeypatch.setattr(bfloat16, "_is_faster", lambda dimension: True)
    monkeypatch.setattr(blocks, "_MIN_QUERIES", {4: 32, 2: 32})
    holders, most = [], []
    module = bfloat16 if ahead else kernels
    score = module.score

    def noted(*arguments):
        scores = score(*arguments)
        holders.append(weakref.ref(scores))
        most.append(sum(holder() is not None for holder in holders))
        return scores

    monkeypatch.setattr(module, "score", noted)
    embeddings, labels = clustered(3000, 16, 1.0)
    evaluate_retrieval(embeddings, labels, recall_at=(1, 100), memory_bytes=2**22)
    assert len(most) > 8
    assert max(most) <= (bfloat16._BLOCKS_AT_ONCE if ahead else 1)


@pytest.mark.parametrize(
    "size, dimension, depth, memory",
    [(62_000, 128, 10, 2**28), (62_000, 512, 10, 2**26), (14_000, 512, 60, 2**28)],
)
def test_all_intermediate_tensors_of_a_block_fit_the_bound_together(size, dimension, depth, memory):
    plan = plan_search(size, size, dimension, depth, memory // 4, score_bytes=2)
    block, rows = tf.TensorSpec([plan.queries, dimension]), tf.TensorSpec([size, dimension])
    tile = tf.TensorSpec([plan.gallery, -(-(dimension + 3) // 32) * 32], tf.bfloat16)
    scores, first = tf.TensorSpec([plan.queries, plan.gallery], tf.bfloat16), tf.TensorSpec([], tf.int32)
    found = tf.TensorSpec([plan.queries, plan.candidates])
    candidates = tf.TensorSpec([plan.queries, plan.candidates], tf.int32)
    left_out, own = tf.TensorSpec([plan.queries]), tf.TensorSpec([plan.queries], tf.int32)
    sizes = intermediate_bytes(machine_score, block, tile)
    sizes += intermediate_bytes(kernels.best_of_chunks, scores, first, plan.candidates, plan.chunk)
    sizes += intermediate_bytes(kernels.merge, found, candidates, left_out, found, candidates, left_out)
    sizes += intermediate_bytes(kernels.rank, block, rows, candidates, own)
    sizes += intermediate_bytes(bfloat16.least_distances, block, left_out, tf.TensorSpec([3]))
    assert max(sizes) <= 4 * sum(sizes) <= memory  # of four blocks
    assert 4 * sum(sizes) >= memory / 8


@pytest.mark.parametrize("at_once", [7, 100, 1000])
def test_a_gallery_is_rounded_piece_by_piece(at_once, monkeypatch):
    monkeypatch.setattr(bfloat16, "_ROUNDED_AT_ONCE", at_once)
    rows = clustered(250, 6, 1.0)[0]
    points = Points(rows, rows)
    coarse = bfloat16.CoarseGallery(points, BlockPlan(queries=1, gallery=100, chunk=1, candidates=3))
    centred = points.rounded_gallery
    for (first, tile), expected_first in zip(coarse._tiles, (0, 100, 200), strict=True):
        part = centred[expected_first : expected_first + 100]
        expected, _ = bfloat16.as_tile(part, tf.constant(100))
        assert int(first) == expected_first
        assert tf.reduce_all(tile == expected)
    _, largest = bfloat16.as_tile(centred, tf.constant(250))
    np.testing.assert_array_equal(coarse._largest_norms, largest)


def test_one_trace_serves_all_shapes(always):
    for size, dimension, memory in ((1200, 3, 2**28), (3000, 5, 1_600_000)):
        nearest_neighbors(clustered(size, dimension, 1.0)[0], k=2, memory_bytes=memory)
    assert len(always) > 2
    functions = (
        bfloat16.as_tile,
        bfloat16.score,
        bfloat16.errors,
        bfloat16.least_distances,
        kernels.choose_from_chunks[tf.bfloat16],
        kernels.merge,
    )
    assert {function.experimental_get_tracing_count() for function in functions} == {1}


@pytest.mark.parametrize("count", [0, 1, 2, 7])
@pytest.mark.parametrize("threads", [1, 2, 3])
def test_items_and_results_come_in_order(count, threads):
    found = list(bfloat16.run_ahead(lambda item: item**2, range(count), threads))
    assert found == [(item, item**2) for item in range(count)]


def test_only_the_next_calls_are_begun():
    begun = []
    results = bfloat16.run_ahead(begun.append, range(10), 2)
    next(results)
    next(results)
    results.close()
    assert sorted(begun) == [0, 1, 2, 3]


def test_the_next_call_runs_while_a_result_is_used():
    reached = threading.Event()

    def call(item: int) -> int:
        if item == 1:
            reached.set()
        return item

    results = bfloat16.run_ahead(call, range(3), 1)
    assert next(results) == (0, 0)
    assert reached.wait(timeout=60)
    assert list(results) == [(1, 1), (2, 2)]


def test_an_error_is_raised_in_the_place_of_its_result():
    results = bfloat16.run_ahead(lambda item: 1 // item, [2, 1, 0, 3], 2)
    assert [next(results), next(results)] == [(2, 0), (1, 1)]
    with pytest.raises(ZeroDivisionError):
        next(results)
