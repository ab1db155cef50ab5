"""Levels and running statistics against loops in float64."""

from __future__ import annotations

import math

import numpy as np
import pytest
import tensorflow as tf

from ccp_dml.losses.contrastive import Contrastive
from ccp_dml.losses.distance_regularization import DistanceRegularization
from ccp_dml.losses.multi_similarity import MultiSimilarity
from ccp_dml.losses.triplet import Triplet
from tests.losses import oracles
from tests.losses.cases import batch

_MARGINS = {"positive_margin": 0.1, "negative_margin": 1.2}


class Listed:
    """The regularisation by loops, with the statistics of the batches so far."""

    def __init__(self, momentum: float) -> None:
        self.momentum, self.mean, self.deviation = momentum, None, 0.0

    def loss(
        self, embeddings: np.ndarray, levels: list[float], weight: float, level_weight: float, power: int
    ) -> tuple[float, np.ndarray]:
        """The term, and the scaled embeddings; `update` comes first."""
        distances = self.distances(embeddings, power)
        nearest = [min(abs((d - self.mean) / self.deviation - level) for level in levels) for d in distances]
        term = weight * sum(nearest) / len(nearest) + level_weight * sum(level**2 for level in levels)
        return term, embeddings / (sum(distances) / len(distances))

    def distances(self, embeddings: np.ndarray, power: int) -> list[float]:
        return [math.sqrt(sum((a - b) ** 2)) ** power for a in embeddings for b in embeddings]

    def update(self, embeddings: np.ndarray, power: int) -> None:
        distances = self.distances(embeddings, power)
        mean = sum(distances) / len(distances)
        deviation = math.sqrt(sum((d - mean) ** 2 for d in distances) / len(distances))
        old = 0.0 if self.mean is None else self.momentum
        self.mean = old * (self.mean or 0.0) + (1 - old) * mean
        self.deviation = old * self.deviation + (1 - old) * deviation


@pytest.mark.parametrize("distance", ["euclidean", "squared_euclidean"])
def test_values_and_gradients_agree_with_loops(distance: str) -> None:
    power = 2 if distance == "squared_euclidean" else 1
    base = Contrastive(**_MARGINS, normalization="none", distance=distance)
    loss = DistanceRegularization(base, 0.6, 0.05, num_levels=4, statistics_momentum=0.7)
    np.testing.assert_allclose(loss.levels, [-3.0, -1.0, 1.0, 3.0])
    levels = [-1.5, -0.4, 0.7, 2.0]
    loss.levels.assign(levels)
    listed = Listed(0.7)
    for seed in range(4):
        labels, embeddings = batch(seed)
        points = tf.constant(embeddings * (1.0 + seed))
        exact = points.numpy().astype(np.float64)
        with tf.GradientTape() as tape:
            tape.watch(points)
            value = loss(labels, points)
        gradient, of_levels = tape.gradient(value, [points, loss.levels])
        listed.update(exact, power)

        def expected(points: np.ndarray, levels: list[float] = levels, labels: np.ndarray = labels) -> float:
            term, scaled = listed.loss(points, levels, 0.6, 0.05, power)
            pairs = oracles.listed_pairs(scaled, labels, normalization="none", distance=distance)
            return term + oracles.contrastive(pairs, **_MARGINS)

        np.testing.assert_allclose(value, expected(exact), rtol=2e-5)
        np.testing.assert_allclose(loss.running_mean, listed.mean, rtol=1e-5)
        np.testing.assert_allclose(loss.running_deviation, listed.deviation, rtol=1e-5)
        direction = np.random.default_rng(seed).normal(size=exact.shape)
        slope = (expected(exact + 1e-6 * direction) - expected(exact - 1e-6 * direction)) / 2e-6
        np.testing.assert_allclose(np.sum(gradient * direction), slope, rtol=1e-3, atol=1e-5)
        for i in range(4):
            moved = [[x + sign * 1e-6 * (j == i) for j, x in enumerate(levels)] for sign in (1, -1)]
            slope = (expected(exact, moved[0]) - expected(exact, moved[1])) / 2e-6
            np.testing.assert_allclose(of_levels[i], slope, rtol=1e-3, atol=1e-5)


def test_cosine_losses_are_scaled_by_the_euclidean_distance() -> None:
    """The mean of cosine distances is near 0, here exactly so."""
    labels = np.array([0, 0, 1, 1], np.int32)
    embeddings = np.array([[1, 0], [-1, 0], [0, 1], [0, -1]], np.float32)
    loss = DistanceRegularization(MultiSimilarity(normalization="none"), regularization_weight=0.0)
    mean = (4 * 2.0 + 8 * math.sqrt(2.0)) / 16
    loss.levels.assign([0.0, 0.0, 0.0])
    expected = MultiSimilarity(normalization="none")(labels, embeddings / mean)
    np.testing.assert_allclose(loss(labels, embeddings), expected, rtol=1e-5)
    np.testing.assert_allclose(loss.running_mean, mean, rtol=1e-6)


def test_base_loss_does_not_depend_on_the_scale_of_the_embeddings() -> None:
    labels, embeddings = batch(1)
    values = [
        DistanceRegularization(Triplet(0.2, normalization="none")).components(labels, embeddings * scale)[
            "pair_loss"
        ]
        for scale in (1e-3, 1.0, 1e4, 1e20)
    ]
    np.testing.assert_allclose(values, values[0], rtol=1e-4)


def test_an_overflowing_batch_does_not_change_the_statistics() -> None:
    loss = DistanceRegularization(Triplet(normalization="none"))
    labels, embeddings = batch(2)
    loss(labels, embeddings)
    before = [float(loss.running_mean), float(loss.running_deviation), int(loss.batches)]
    broken = embeddings.copy()
    broken[3, 1] = np.inf
    loss(labels, broken)
    assert [float(loss.running_mean), float(loss.running_deviation), int(loss.batches)] == before
