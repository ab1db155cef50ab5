"""Sorted prefix sums against the cube of all triplets."""

from __future__ import annotations

import numpy as np
import pytest
import tensorflow as tf

from ccp_dml.geometry.pair_masks import pair_masks
from ccp_dml.losses.pairs import Pairs
from ccp_dml.losses.triplet import sum_of_triplets


def _cube(pairs: Pairs, margin: float) -> tuple[tf.Tensor, tf.Tensor]:
    distances = tf.cast(pairs.distances, tf.float64)
    terms = tf.nn.relu(distances[:, :, tf.newaxis] - distances[:, tf.newaxis, :] + margin)
    formed = pairs.positives[:, :, tf.newaxis] & pairs.negatives[:, tf.newaxis, :]
    terms = tf.where(formed, terms, 0.0)
    return tf.reduce_sum(terms), tf.math.count_nonzero(terms)


@pytest.mark.parametrize("margin", [-0.05, 0.0, 0.1, 10.0])
@pytest.mark.parametrize("ties", [False, True])
def test_equals_the_cube(margin: float, ties: bool) -> None:
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
