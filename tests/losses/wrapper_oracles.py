"""The wrappers in float64, one inside another as in a path; written without the library."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import tensorflow as tf

from ccp_dml.losses.base import MetricLoss
from tests.losses import oracles
from tests.losses.cases import NUM_CLASSES, value_and_gradients

Array = np.ndarray


class Loss:
    """A loss, and the base class of the wrappers.

    `observe` updates the state with a batch; `value` computes the loss of a batch and changes no state.
    """

    def __init__(self, names: tuple[str, ...], loss: Any, options: dict[str, Any]) -> None:
        self.loss, self.options = loss, options
        self.name = names[0]
        self.inside = _layer(names[1:], loss.base, options) if names[1:] else None

    @property
    def core(self) -> Loss:
        return self if self.inside is None else self.inside.core

    @property
    def kind(self) -> str:
        return self.options.get("normalization", "lipschitz")

    def proxies(self) -> tuple[Array, Array]:
        rows = self.loss.proxies.embeddings.numpy().astype(np.float64)
        return rows, np.arange(len(rows)) % NUM_CLASSES

    def observe(self, embeddings: Array, labels: Array) -> None:
        if self.inside is not None:
            self.inside.observe(embeddings, labels)

    def value(self, embeddings: Array, labels: Array) -> float:
        if self.loss.proxies is not None:
            return self.against(embeddings, labels, *self.proxies())
        return self.of_pairs(self.pairs(embeddings, labels))

    def against(self, embeddings: Array, labels: Array, rows: Array, row_labels: Array) -> float:
        return self.of_pairs(self.pairs(embeddings, labels, rows, row_labels))

    def pairs(self, *arrays: Array) -> oracles.Listed:
        options = {**oracles.PAIR_OPTIONS.get(self.name, {}), "normalization": self.kind}
        if "distance" in self.options:
            options["distance"] = self.options["distance"]
        return oracles.listed_pairs(*arrays, **options)

    def of_pairs(self, pairs: oracles.Listed) -> float:
        return self.options.get("weight", 1.0) * getattr(oracles, self.name)(pairs, **self.options)


class Ccp(Loss):
    def value(self, embeddings: Array, labels: Array) -> float:
        to_proxies = self.core.against(embeddings, labels, *self.proxies())
        weights = self.loss.pair_weight, self.loss.proxy_weight
        return weights[0] * self.inside.value(embeddings, labels) + weights[1] * to_proxies


class Xbm(Loss):
    """Keeps rows, oldest first; the last rows are the copies of the batch."""

    rows: tuple[tuple[Array, int], ...] = ()
    steps = 0

    def observe(self, embeddings: Array, labels: Array) -> None:
        super().observe(embeddings, labels)
        self.rows = (*self.rows, *zip(embeddings, labels))[-self.loss.memory_size :]
        self.steps += 1

    def value(self, embeddings: Array, labels: Array) -> float:
        total = self.loss.pair_weight * self.inside.value(embeddings, labels)
        if len(self.rows) < self.loss.memory_size or self.steps < self.loss.start_step:
            return total
        rows, row_labels = (np.stack(part) for part in zip(*self.rows))
        pairs, first = self.core.pairs(embeddings, labels, rows, row_labels), len(rows) - len(labels)
        pairs.positives = [[j for j in row if j != first + i] for i, row in enumerate(pairs.positives)]
        return total + self.loss.memory_weight * self.core.of_pairs(pairs)


class Mdr(Loss):
    mean = deviation = 0.0
    seen = False

    def distances(self, embeddings: Array) -> list[float]:
        return [math.sqrt(sum((a - b) ** 2)) for a in embeddings for b in embeddings]

    def scaled(self, embeddings: Array) -> Array:
        return embeddings / np.mean(self.distances(embeddings))

    def observe(self, embeddings: Array, labels: Array) -> None:
        super().observe(self.scaled(embeddings), labels)
        distances, old = self.distances(embeddings), self.loss.statistics_momentum if self.seen else 0.0
        self.mean = old * self.mean + (1 - old) * np.mean(distances)
        self.deviation = old * self.deviation + (1 - old) * np.std(distances)
        self.seen = True

    def value(self, embeddings: Array, labels: Array) -> float:
        levels = self.loss.levels.numpy().astype(np.float64)
        normalized = [(d - self.mean) / self.deviation for d in self.distances(embeddings)]
        nearest = np.mean([min(abs(d - level) for level in levels) for d in normalized])
        term = self.loss.regularization_weight * nearest + self.loss.level_weight * sum(levels**2)
        return term + self.inside.value(self.scaled(embeddings), labels)


class Ps(Loss):
    def value(self, embeddings: Array, labels: Array) -> float:
        rows, row_labels = self.proxies()
        more = synthetic(embeddings, labels, rows, self.loss.mixing_rate, len(labels), self.kind, NUM_CLASSES)
        parts = zip((embeddings, labels, rows, row_labels), more)
        return self.inside.against(*(np.concatenate(part) for part in parts))


class VirtualSoftmax(Loss):
    def against(self, embeddings: Array, labels: Array, rows: Array, row_labels: Array) -> float:
        pairs = self.inside.pairs(embeddings, labels, rows, row_labels)
        for row, negatives, embedding in zip(pairs.distances, pairs.negatives, embeddings):
            negatives.append(len(row))
            row.append(-sum(unit(embedding, self.kind) ** 2))
        return self.inside.of_pairs(pairs)


WRAPPERS: dict[str, type[Loss]] = {
    "ccp": Ccp,
    "xbm": Xbm,
    "mdr": Mdr,
    "ps": Ps,
    "virtual_softmax": VirtualSoftmax,
}


def oracle_of(path: str, loss: MetricLoss, options: dict[str, Any]) -> Loss:
    """Makes the oracle of a loss, with the same parameters and variables."""
    return _layer(tuple(path.split("/")), loss, options)


def _layer(names: tuple[str, ...], loss: Any, options: dict[str, Any]) -> Loss:
    return WRAPPERS.get(names[0], Loss)(names, loss, options)


def unit(vector: Array, kind: str) -> Array:
    """Normalises a vector."""
    norm = math.sqrt(sum(vector**2))
    return vector / {"lipschitz": max(1.0, norm), "unit": norm, "none": 1.0}[kind]


def synthetic(
    embeddings: Array, labels: Array, proxies: Array, rate: float, count: int, kind: str, num_classes: int
) -> tuple[list[Array], list[int], list[Array], list[int]]:
    """Returns synthetic samples and their labels, synthetic proxies and their labels."""
    samples, sample_labels, rows, row_labels = [], [], [], []
    seen: dict[tuple[int, int], int] = {}
    for i in range(count):
        before = (i - 1) % len(labels)
        own, other = int(labels[i]), int(labels[before])
        label = own if own == other else seen.setdefault((own, other), num_classes + i)
        samples.append(rate * unit(embeddings[i], kind) + (1 - rate) * unit(embeddings[before], kind))
        sample_labels.append(label)
        for k in range(len(proxies) // num_classes):
            first, second = (unit(proxies[k * num_classes + c], kind) for c in (own, other))
            rows.append(rate * first + (1 - rate) * second)
            row_labels.append(label)
    return samples, sample_labels, rows, row_labels


def check_against(loss: Any, labels: Array, embeddings: Array, expected: Callable[..., float]) -> None:
    """Compares a loss with `expected(embeddings, proxies)`, its gradients with finite differences."""
    value, gradient, [of_proxies] = value_and_gradients(loss, labels, embeddings)
    points = [embeddings.astype(np.float64), loss.proxies.embeddings.numpy().astype(np.float64)]
    np.testing.assert_allclose(value, expected(*points), rtol=2e-5)
    for i, found in enumerate((gradient, of_proxies)):
        direction = np.random.default_rng(i).normal(size=points[i].shape)
        moved = [
            [p + sign * 1e-6 * direction if j == i else p for j, p in enumerate(points)] for sign in (1, -1)
        ]
        slope = (expected(*moved[0]) - expected(*moved[1])) / 2e-6
        np.testing.assert_allclose(
            np.sum(tf.convert_to_tensor(found) * direction), slope, rtol=1e-3, atol=1e-5
        )
