"""Pairwise distances against loops, and their gradients at coincident points."""

from __future__ import annotations

import numpy as np
import pytest
import tensorflow as tf
from hypothesis import given, settings
from hypothesis import strategies as st

from ccp_dml.geometry import DISTANCES, pairwise_distances


def _oracle(references: np.ndarray, samples: np.ndarray, kind: str) -> np.ndarray:
    result = np.zeros((len(references), len(samples)))
    for i, reference in enumerate(references.astype(np.float64)):
        for j, sample in enumerate(samples.astype(np.float64)):
            squared = sum((a - b) ** 2 for a, b in zip(reference, sample))
            product = sum(a * b for a, b in zip(reference, sample))
            result[i, j] = {"euclidean": squared**0.5, "squared_euclidean": squared, "cosine": -product}[kind]
    return result


@pytest.mark.parametrize("kind", DISTANCES)
def test_agrees_with_loops(kind: str) -> None:
    random = np.random.default_rng(1)
    references, samples = random.normal(size=(4, 3)), random.normal(size=(6, 3))
    actual = pairwise_distances(references, samples, kind)
    assert actual.dtype == tf.float32
    np.testing.assert_allclose(actual, _oracle(references, samples, kind), rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(
        pairwise_distances(samples, kind=kind), _oracle(samples, samples, kind), rtol=1e-5, atol=1e-6
    )


@pytest.mark.parametrize("jit_compile", [False, True])
@pytest.mark.parametrize("size", [3, 64, 512, 2048])
def test_coincident_points_are_at_distance_zero_with_gradient_zero(size: int, jit_compile: bool) -> None:
    random = np.random.default_rng(size)
    points = tf.constant(random.normal(size=(40, size)), tf.float32)

    @tf.function(jit_compile=jit_compile)
    def distances_and_gradient(samples: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        with tf.GradientTape() as tape:
            tape.watch(samples)
            distances = tf.linalg.diag_part(pairwise_distances(points, samples))
        return distances, tape.gradient(distances, samples)

    # Rounding of another layout: the products are not those of a matrix with itself.
    distances, gradient = distances_and_gradient(tf.identity(points))
    np.testing.assert_array_equal(distances, 0.0)
    np.testing.assert_array_equal(gradient, 0.0)


def _neighbours(size: int, distance: float) -> tuple[np.ndarray, np.ndarray]:
    """Draws unit vectors, and a neighbour of each at about the distance."""
    random = np.random.default_rng(size)
    points = random.normal(size=(30, size))
    points /= np.linalg.norm(points, axis=1, keepdims=True)
    moves = random.normal(size=(30, size))
    moves -= np.sum(moves * points, axis=1, keepdims=True) * points
    moves *= distance / np.linalg.norm(moves, axis=1, keepdims=True)
    return points.astype(np.float32), (points + moves).astype(np.float32)


@pytest.mark.parametrize("jit_compile", [False, True], ids=["graph", "xla"])
@pytest.mark.parametrize("scale", [1.0, 1e-8, 1e8])
@pytest.mark.parametrize("distance", [2e-3, 3e-3, 1e-2, 4e-2, 0.1])
@pytest.mark.parametrize("size", [8, 2048])
def test_near_points_have_exact_distances_and_gradients(
    size: int, distance: float, scale: float, jit_compile: bool
) -> None:
    points, near = (tf.constant(scale * values, tf.float32) for values in _neighbours(size, distance))

    @tf.function(jit_compile=jit_compile)
    def distances_and_gradient(samples: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        with tf.GradientTape() as tape:
            tape.watch(samples)
            distances = tf.linalg.diag_part(pairwise_distances(points, samples))
        return distances, tape.gradient(distances, samples)

    distances, gradient = distances_and_gradient(near)
    differences = near.numpy().astype(np.float64) - points.numpy()
    expected = np.linalg.norm(differences, axis=1)
    np.testing.assert_allclose(distances, expected, rtol=4e-4)
    errors = np.linalg.norm(gradient - differences / expected[:, np.newaxis], axis=1)
    assert errors.max() < 1e-3


def test_a_distance_does_not_depend_on_other_pairs() -> None:
    """A near pair makes float64 look at the near pairs only."""
    random = np.random.default_rng(0)
    points = random.normal(size=(6, 16)).astype(np.float32)
    plain = pairwise_distances(points).numpy()
    near = np.concatenate([points, points[:1] + np.float32(1e-2)])
    np.testing.assert_array_equal(pairwise_distances(near).numpy()[1:6, 1:6], plain[1:, 1:])
    assert 0.0 < pairwise_distances(near).numpy()[0, 6] < 5e-2


def test_points_nearer_than_the_noise_coincide_beside_near_ones() -> None:
    points, near = _neighbours(64, 1e-2)
    coincident = _neighbours(64, 3e-4)[1]
    distances = pairwise_distances(points, np.concatenate([near, coincident])).numpy()
    np.testing.assert_array_equal(np.diag(distances[:, 30:]), 0.0)
    np.testing.assert_allclose(np.diag(distances[:, :30]), 1e-2, rtol=1e-4)


@settings(max_examples=25, deadline=None, derandomize=True)
@given(st.integers(0, 10**6), st.sampled_from(["euclidean", "squared_euclidean"]))
def test_is_symmetric_non_negative_and_invariant_to_rotation(seed: int, kind: str) -> None:
    random = np.random.default_rng(seed)
    points = random.normal(size=(6, 4))
    rotation = np.linalg.qr(random.normal(size=(4, 4)))[0]
    distances = pairwise_distances(points, kind=kind).numpy()
    assert (distances >= 0.0).all()
    np.testing.assert_array_equal(np.diag(distances), 0.0)
    np.testing.assert_allclose(distances, distances.T, rtol=1e-5, atol=1e-5)
    np.testing.assert_allclose(
        pairwise_distances(points @ rotation, kind=kind), distances, rtol=1e-4, atol=1e-4
    )


def test_unknown_kind_is_named() -> None:
    with pytest.raises(ValueError, match="'manhattan'.*euclidean"):
        pairwise_distances(tf.zeros([1, 2]), kind="manhattan")
