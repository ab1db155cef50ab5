"""Greedy k-center against a loop over classes."""

from __future__ import annotations

import numpy as np
import pytest
import tensorflow as tf
from hypothesis import given, settings
from hypothesis import strategies as st

from ccp_dml.geometry import greedy_k_center


def _oracle(pool: np.ndarray, covered: np.ndarray, k: int, normalized: bool) -> np.ndarray:
    """Chooses indices [k, C] for one class after the other, in float64."""

    def unit(vector: np.ndarray) -> np.ndarray:
        norm = np.linalg.norm(vector)
        return vector / norm if normalized and norm > 0 else vector

    picks = np.zeros((k, pool.shape[1]), int)
    for c in range(pool.shape[1]):
        points = [unit(point) for point in pool[:, c].astype(np.float64)]
        centers = [unit(center) for center in covered[:, c].astype(np.float64)]
        for step in range(k):
            gaps = [min(np.sum((point - center) ** 2) for center in centers) for point in points]
            picks[step, c] = int(np.argmax(gaps))
            centers.append(points[picks[step, c]])
    return picks


@settings(max_examples=25, deadline=None, derandomize=True)
@given(st.integers(0, 10**6), st.integers(1, 6), st.integers(1, 3), st.booleans())
def test_agrees_with_one_class_at_a_time(seed: int, k: int, m: int, normalized: bool) -> None:
    random = np.random.default_rng(seed)
    pool, covered = random.normal(size=(6, 4, 3)), random.normal(size=(m, 4, 3))
    picks, centers = greedy_k_center(pool, covered, k, normalized)
    np.testing.assert_array_equal(picks, _oracle(pool, covered, k, normalized))
    raw = [[pool[picks[i, c], c] for c in range(4)] for i in range(k)]
    np.testing.assert_allclose(centers, raw, rtol=1e-6)


def test_farthest_from_the_origin_is_the_longest_vector() -> None:
    pool = np.array([[[1.0, 0.0]], [[0.0, -3.0]], [[2.0, 0.0]]])
    picks, _ = greedy_k_center(pool, np.zeros((1, 1, 2)), 3)
    np.testing.assert_array_equal(picks[:, 0], [1, 2, 0])


def test_unit_vectors_tie_at_the_origin_and_the_first_is_taken() -> None:
    pool = np.random.default_rng(0).normal(size=(50, 200, 33))
    picks, _ = greedy_k_center(pool, np.zeros((2, 200, 33)), 1, normalized=True)
    np.testing.assert_array_equal(picks, np.zeros((1, 200)))


def test_never_takes_a_point_twice_while_others_are_left() -> None:
    pool = np.random.default_rng(1).normal(size=(5, 3, 2))
    picks, _ = greedy_k_center(pool, pool[:1], 4)
    assert all(len(set(picks.numpy()[:, c])) == 4 for c in range(3))
    assert 0 not in picks.numpy()


def test_compiles_with_xla() -> None:
    pool = tf.constant(np.random.default_rng(2).normal(size=(7, 3, 4)), tf.float32)
    covered = tf.zeros([2, 3, 4])
    compiled = tf.function(lambda a, b: greedy_k_center(a, b, 3), jit_compile=True)
    np.testing.assert_array_equal(compiled(pool, covered)[0], greedy_k_center(pool, covered, 3)[0])


@pytest.mark.parametrize("k", [0, 4])
def test_wrong_number_of_centers_is_named(k: int) -> None:
    with pytest.raises(ValueError, match=rf"k is {k}; expected 1\.\.3"):
        greedy_k_center(np.zeros((3, 1, 2)), np.zeros((1, 1, 2)), k)


def test_an_empty_set_of_covered_points_is_refused() -> None:
    with pytest.raises(ValueError, match="covered is empty"):
        greedy_k_center(np.zeros((3, 1, 2)), np.zeros((0, 1, 2)), 1)


DIRECTIONS = np.random.default_rng(5).normal(size=(6, 40))
# Numbers of directions, of candidates that repeat them at other lengths, and the picks that follow.
FEW_DIRECTIONS = {
    "one": ([0, 0, 0, 0], [0, 0, 0]),
    "two": ([0, 1, 0, 1, 1, 0], [0, 1, 0, 0]),
    "the second twice": ([3, 4, 4, 3, 4], [0, 1, 0, 0, 0]),
    "late": ([2, 2, 2, 2, 5], [0, 4, 0, 0]),
}


@pytest.mark.parametrize("case", FEW_DIRECTIONS)
@pytest.mark.parametrize("compiled", [False, True])
def test_of_equal_directions_the_first_is_taken(case, compiled):
    """Vectors of one direction and other lengths differ by rounding, once they are at unit length."""
    directions, expected = FEW_DIRECTIONS[case]
    lengths = np.random.default_rng(6).uniform(0.01, 100, (len(directions), 50, 1))
    pool = (DIRECTIONS[directions][:, np.newaxis] * lengths).astype(np.float32)
    chosen = tf.function(greedy_k_center, jit_compile=compiled)
    picks, _ = chosen(pool, np.zeros((1, 50, 40), np.float32), len(expected), True)
    np.testing.assert_array_equal(picks, np.tile(np.array(expected)[:, np.newaxis], 50))
    picks, _ = chosen(pool, 3.7 * pool, len(expected), True)
    np.testing.assert_array_equal(picks, 0)
