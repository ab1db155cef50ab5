"""The three ways of counting triplets against the cube of all triplets."""

from __future__ import annotations

import numpy as np
import pytest
import tensorflow as tf

from ccp_dml.geometry import pair_masks
from ccp_dml.losses import triplet_counts
from ccp_dml.losses.pairs import Pairs
from ccp_dml.losses.triplet_counts import sum_of_triplets


def _cube(pairs: Pairs, margin: float, semi_hard: bool = False) -> tuple[tf.Tensor, tf.Tensor]:
    distances = tf.cast(pairs.distances, tf.float64)
    terms = tf.nn.relu(distances[:, :, tf.newaxis] - distances[:, tf.newaxis, :] + margin)
    formed = pairs.positives[:, :, tf.newaxis] & pairs.negatives[:, tf.newaxis, :]
    if semi_hard:
        formed &= distances[:, :, tf.newaxis] < distances[:, tf.newaxis, :]
    terms = tf.where(formed, terms, 0.0)
    return tf.reduce_sum(terms), tf.math.count_nonzero(terms)


@pytest.mark.parametrize("margin", [-0.05, 0.0, 0.1, 10.0])
@pytest.mark.parametrize("ties", [False, True])
@pytest.mark.parametrize("few", [1, 32, 64], ids=["by_sorting", "by_comparison", "at_once"])
def test_all_triplets_equal_those_of_the_cube(
    monkeypatch: pytest.MonkeyPatch, few: int, margin: float, ties: bool
) -> None:
    monkeypatch.setattr(triplet_counts, "_FEW", few)
    random = np.random.default_rng(0)
    labels = tf.constant(random.integers(0, 7, 60), tf.int32)
    distances = random.uniform(0.0, 2.0, (60, 60))
    if ties:
        # Multiples of 1/8 and a margin that is one: terms that are exactly 0 are not active.
        distances, margin = np.round(distances * 8) / 8, np.round(margin * 8) / 8
    distances = tf.constant(distances, tf.float32)
    results = []
    for function in (sum_of_triplets, _cube):
        with tf.GradientTape() as tape:
            tape.watch(distances)
            total, active = function(Pairs(distances, *pair_masks(labels), labels, labels), margin)
        results.append((total, active, tape.gradient(total, distances)))
    (total, active, gradient), (expected_total, expected_active, expected_gradient) = results
    np.testing.assert_allclose(total, expected_total, rtol=1e-5)
    assert float(active) == float(expected_active)
    np.testing.assert_allclose(gradient, expected_gradient, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("margin", [0.25, 0.5, 10.0])
@pytest.mark.parametrize("ties", [False, True])
@pytest.mark.parametrize("few", [1, 32, 64], ids=["by_sorting", "by_comparison", "at_once"])
def test_semi_hard_triplets_equal_those_of_the_cube(
    monkeypatch: pytest.MonkeyPatch, few: int, margin: float, ties: bool
) -> None:
    monkeypatch.setattr(triplet_counts, "_FEW", few)
    random = np.random.default_rng(1)
    labels = tf.constant(random.integers(0, 7, 60), tf.int32)
    distances = random.uniform(0.0, 2.0, (60, 60))
    distances = tf.constant(np.round(distances * 8) / 8 if ties else distances, tf.float32)
    pairs = Pairs(distances, *pair_masks(labels), labels, labels)
    with tf.GradientTape(persistent=True) as tape:
        tape.watch(distances)
        pairs = Pairs(distances, *pair_masks(labels), labels, labels)
        total, count = sum_of_triplets(pairs, margin, semi_hard=True)
        expected_total, expected_count = _cube(pairs, margin, semi_hard=True)
    assert float(count) == float(expected_count) > 0.0
    np.testing.assert_allclose(total, expected_total, rtol=1e-5)
    np.testing.assert_allclose(
        tape.gradient(total, distances), tape.gradient(expected_total, distances), rtol=1e-5, atol=1e-5
    )


def test_a_few_semi_hard_triplets_among_many_hard_ones_are_exact() -> None:
    """The hard triplets far outweigh the semi-hard ones, and must not leave rounding noise."""
    labels = tf.constant([0] * 500 + [1] * 500, tf.int32)
    row = np.concatenate([np.full(500, 1000.0), np.linspace(0.0, 900.0, 500)])
    row[500] = 1000.25
    distances = np.zeros((1000, 1000), np.float32)
    distances[0] = row
    positives = np.zeros((1000, 1000), bool)
    positives[0, 1] = True
    positives[0, 2:500] = True
    negatives = np.zeros((1000, 1000), bool)
    negatives[0, 500:] = True
    pairs = Pairs(tf.constant(distances), tf.constant(positives), tf.constant(negatives), labels, labels)
    total, count = sum_of_triplets(pairs, 0.5, semi_hard=True)
    assert float(count) == 499.0
    np.testing.assert_allclose(float(total) / float(count), 0.25, rtol=1e-3)
