"""Normalisations against loops, and their gradients."""

from __future__ import annotations

import numpy as np
import pytest
import tensorflow as tf

from ccp_dml.geometry import NORMALIZATIONS, normalize


def _oracle(vectors: np.ndarray, kind: str) -> np.ndarray:
    rows = []
    for vector in vectors.astype(np.float64):
        norm = float(np.sqrt(sum(component**2 for component in vector)))
        sum_of_sizes = float(sum(abs(component) for component in vector))
        divisors = {
            "lipschitz": max(1.0, norm),
            "unit": max(norm, 1e-6),
            "l1": max(1.0, sum_of_sizes),
            "none": 1.0,
        }
        divisor = divisors[kind]
        rows.append(vector / divisor)
    return np.array(rows)


@pytest.mark.parametrize("kind", NORMALIZATIONS)
def test_agrees_with_a_loop_over_rows_shorter_and_longer_than_one(kind: str) -> None:
    vectors = np.random.default_rng(0).normal(size=(20, 5)) * np.geomspace(1e-3, 1e3, 20)[:, np.newaxis]
    vectors = vectors.astype(np.float32)
    vectors[3] = 0.0
    np.testing.assert_allclose(normalize(vectors, kind), _oracle(vectors, kind), rtol=1e-6)


def test_lipschitz_gradient_is_identity_inside_and_tangential_outside() -> None:
    vectors = tf.constant([[0.3, 0.4], [3.0, 4.0], [0.0, 0.0]])
    upstream = tf.constant([[1.0, 2.0], [1.0, 2.0], [1.0, 2.0]])
    with tf.GradientTape() as tape:
        tape.watch(vectors)
        normalized = normalize(vectors, "lipschitz")
    gradient = tape.gradient(normalized, vectors, output_gradients=upstream).numpy()
    direction = np.array([0.6, 0.8])
    tangential = (np.array([1.0, 2.0]) - np.dot([1.0, 2.0], direction) * direction) / 5.0
    np.testing.assert_allclose(gradient, [[1.0, 2.0], tangential, [1.0, 2.0]], rtol=1e-5)


@pytest.mark.parametrize("kind", ["lipschitz", "unit", "l1"])
@pytest.mark.parametrize("size", [0.0, 1e-30, 1e-7, 1e19, 1e30])
def test_value_and_gradient_are_finite_for_any_size(kind: str, size: float) -> None:
    vectors = tf.constant([[size, -size, 0.5 * size]])
    with tf.GradientTape() as tape:
        tape.watch(vectors)
        normalized = normalize(vectors, kind)
    gradient = tape.gradient(normalized, vectors)
    assert np.isfinite(normalized).all()
    assert np.isfinite(gradient).all()
    assert np.linalg.norm(normalized) <= 1.0 + 1e-6
    if size >= 1e19:
        norm = np.linalg.norm(normalized[0], ord=1 if kind == "l1" else 2)
        np.testing.assert_allclose(norm, 1.0, rtol=1e-6)


def test_half_precision_is_normalised_in_float32() -> None:
    vectors = tf.constant([[300.0, 400.0]], tf.float16)
    normalized = normalize(vectors, "unit")
    assert normalized.dtype == tf.float32
    np.testing.assert_allclose(normalized, [[0.6, 0.8]], rtol=1e-6)


def test_unknown_kind_is_named() -> None:
    with pytest.raises(ValueError, match="'l3'.*lipschitz"):
        normalize(tf.zeros([1, 2]), "l3")
