"""The losses by explicit loops over listed pairs, in float64: slow, and written without the library.

The function of a loss has its name, and states the defaults of its parameters. It takes all options of a
case, and ignores those that only concern the pairs.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

Matrix = list[list[float]]
Oracle = Callable[..., float]


@dataclass
class Listed:
    """Pairs as lists: distances [A, S], and for each anchor the columns of its positives and negatives."""

    distances: Matrix
    positives: list[list[int]]
    negatives: list[list[int]]
    anchor_labels: list[int]
    columns: int


def _normalized(vector: np.ndarray, kind: str) -> np.ndarray:
    norm = math.sqrt(sum(float(v) ** 2 for v in vector))
    return (
        vector
        / {
            "lipschitz": max(1.0, norm),
            "unit": max(norm, 1e-6),
            "l1": max(1.0, float(np.abs(vector).sum())),
            "none": 1.0,
        }[kind]
    )


def _distance(a: np.ndarray, b: np.ndarray, kind: str) -> float:
    if kind == "cosine":
        return -sum(float(x) * float(y) for x, y in zip(a, b))
    squared = sum((float(x) - float(y)) ** 2 for x, y in zip(a, b))
    return squared if kind == "squared_euclidean" else math.sqrt(squared)


def listed_pairs(
    embeddings: np.ndarray,
    labels: np.ndarray,
    proxies: np.ndarray | None = None,
    proxy_labels: np.ndarray | None = None,
    *,
    normalization: str = "lipschitz",
    distance: str = "euclidean",
    proxy_anchor: bool = False,
    proxy_pairs: bool = False,
    miner: str | None = None,
    references_per_batch: int = 0,
) -> Listed:
    """Lists the pairs that the options of a loss ask for."""
    if references_per_batch:
        proxies, proxy_labels = embeddings[:references_per_batch], labels[:references_per_batch]
        embeddings, labels = embeddings[references_per_batch:], labels[references_per_batch:]
    samples = [(_normalized(e, normalization), int(y)) for e, y in zip(embeddings, labels)]
    anchors = columns = samples
    if proxies is not None:
        references = [(_normalized(p, normalization), int(y)) for p, y in zip(proxies, proxy_labels)]
        samples = samples + references if proxy_pairs else samples
        anchors, columns = (references, samples) if proxy_anchor else (samples, references)
    itself = proxies is None
    distances = [[_distance(a, b, distance) for b, _ in columns] for a, _ in anchors]
    positives: list[list[int]] = []
    negatives: list[list[int]] = []
    for i, (_, label) in enumerate(anchors):
        positives.append([j for j, (_, y) in enumerate(columns) if y == label and not (itself and i == j)])
        negatives.append([j for j, (_, y) in enumerate(columns) if y != label])
    if miner == "hard_negatives":
        k = max(1, max(len(p) for p in positives))
        negatives = [
            sorted(negatives[i], key=lambda j, row=distances[i]: row[j])[:k] for i in range(len(anchors))
        ]
    return Listed(distances, positives, negatives, [y for _, y in anchors], len(columns))


def _average(positive_terms: list[float], negative_terms: list[float], size: int, average: str) -> float:
    if average == "all":
        return (sum(positive_terms) + sum(negative_terms)) / size
    total = 0.0
    for terms in (positive_terms, negative_terms):
        active = [term for term in terms if term > 0.0]
        total += sum(active) / len(active) if active else 0.0
    return total


def _terms(pairs: Listed, of_positive: Any, of_negative: Any) -> tuple[list[float], list[float]]:
    positive_terms, negative_terms = [], []
    for i, row in enumerate(pairs.distances):
        positive_terms += [max(0.0, of_positive(i, row[j])) for j in pairs.positives[i]]
        negative_terms += [max(0.0, of_negative(i, row[j])) for j in pairs.negatives[i]]
    return positive_terms, negative_terms


def on_pairs(**options: Any) -> Callable[[Oracle], Oracle]:
    """States the options of `listed_pairs` that a loss has by default, such as its distance."""

    def decorate(oracle: Oracle) -> Oracle:
        PAIR_OPTIONS[oracle.__name__] = options
        return oracle

    return decorate


PAIR_OPTIONS: dict[str, dict[str, Any]] = {}


def contrastive(
    pairs: Listed,
    positive_margin: float = 0.2652,
    negative_margin: float = 0.5409,
    average: str = "active",
    **_: Any,
) -> float:
    terms = _terms(pairs, lambda i, d: d - positive_margin, lambda i, d: negative_margin - d)
    return _average(*terms, len(pairs.distances) * pairs.columns, average)


@on_pairs(distance="cosine")
def original_contrastive(pairs: Listed, margin: float = 0.5, slack: float = 1e-5, **_: Any) -> float:
    terms = _terms(pairs, lambda i, d: 1.0 + d - slack, lambda i, d: -d - margin)
    return (sum(terms[0]) + sum(terms[1])) / len(pairs.distances)


def triplet(
    pairs: Listed, margin: float = 0.1, average: str = "active", triplets: str = "all", **_: Any
) -> float:
    positives, negatives = pairs.positives, pairs.negatives
    if triplets == "hardest":
        wanted = [max(1, min(len(row) for row in lists)) for lists in (positives, negatives)]
        rows = pairs.distances
        positives = [
            sorted(p, key=lambda j, row=row: -row[j])[: wanted[0]] for p, row in zip(positives, rows)
        ]
        negatives = [sorted(n, key=lambda j, row=row: row[j])[: wanted[1]] for n, row in zip(negatives, rows)]
    terms = [
        max(0.0, row[p] - row[n] + margin)
        for row, row_positives, row_negatives in zip(pairs.distances, positives, negatives)
        for p in row_positives
        for n in row_negatives
        if triplets != "semi_hard" or row[p] < row[n] < row[p] + margin
    ]
    if average == "active":
        return sum(terms) / max(1, sum(term > 0.0 for term in terms))
    if triplets != "all":
        return sum(terms) / max(1, len(terms))
    return sum(terms) / (len(pairs.distances) * pairs.columns**2)


@on_pairs(distance="cosine")
def multi_similarity(
    pairs: Listed, alpha: float = 2.0, beta: float = 40.0, threshold: float = 0.5, **_: Any
) -> float:
    total = 0.0
    for row, positives, negatives in zip(pairs.distances, pairs.positives, pairs.negatives):
        total += math.log1p(sum(math.exp(alpha * (threshold + row[j])) for j in positives)) / alpha
        total += math.log1p(sum(math.exp(beta * (-row[j] - threshold)) for j in negatives)) / beta
    return total / len(pairs.distances)


@on_pairs(distance="cosine", proxy_anchor=True)
def proxy_anchor(pairs: Listed, alpha: float = 32.0, margin: float = 0.1, **_: Any) -> float:
    pull, push = [], []
    for row, positives, negatives in zip(pairs.distances, pairs.positives, pairs.negatives):
        if positives:
            pull.append(math.log1p(sum(math.exp(alpha * (margin + row[j])) for j in positives)))
        if negatives:
            push.append(math.log1p(sum(math.exp(alpha * (margin - row[j])) for j in negatives)))
    return sum(pull) / max(1, len(pull)) + sum(push) / max(1, len(push))


def _softmax_choice(pairs: Listed, temperature: float, margin: float = 0.0) -> float:
    total = 0.0
    for row, positives, negatives in zip(pairs.distances, pairs.positives, pairs.negatives):
        if positives:
            own = sum(math.exp((-row[j] - margin) / temperature) for j in positives)
            others = sum(math.exp(-row[j] / temperature) for j in negatives)
            total += math.log((own + others) / own)
    return total / len(pairs.distances)


@on_pairs(distance="cosine")
def proxy_nca(pairs: Listed, temperature: float = 0.11, margin: float = 0.0, **_: Any) -> float:
    return _softmax_choice(pairs, temperature, margin)


def cross_entropy(pairs: Listed, temperature: float = 0.11, **_: Any) -> float:
    return _softmax_choice(pairs, temperature)


def margin(
    pairs: Listed,
    alpha: float = 0.2,
    beta: float = 1.2,
    beta_weight: float = 0.0,
    average: str = "active",
    class_beta: np.ndarray | None = None,
    **_: Any,
) -> float:
    of_class = (lambda y: beta) if class_beta is None else (lambda y: float(class_beta[y]))
    betas = [of_class(y) for y in pairs.anchor_labels]
    terms = _terms(pairs, lambda i, d: d - betas[i] + alpha, lambda i, d: betas[i] + alpha - d)
    hinges = _average(*terms, len(pairs.distances) * pairs.columns, average)
    return hinges + beta_weight * sum(betas) / len(betas)


@on_pairs(distance="cosine")
def soft_triple(
    pairs: Listed,
    proxies: np.ndarray,
    num_classes: int,
    scale: float = 20.0,
    temperature: float = 0.1,
    margin: float = 0.01,
    center_weight: float = 0.2,
    center_normalization: str = "unit",
    **_: Any,
) -> float:
    k = len(proxies) // num_classes
    total = 0.0
    for row, label in zip(pairs.distances, pairs.anchor_labels):
        logits = []
        for c in range(num_classes):
            similarities = [-row[j * num_classes + c] for j in range(k)]
            weights = [math.exp(s / temperature) for s in similarities]
            of_class = sum(w * s for w, s in zip(weights, similarities)) / sum(weights)
            logits.append(scale * (of_class - (margin if c == label else 0.0)))
        total += math.log(sum(math.exp(logit - logits[label]) for logit in logits))
    spread = 0.0
    rows = [_normalized(p, center_normalization) for p in proxies]
    for c in range(num_classes):
        for i in range(k):
            for j in range(i + 1, k):
                product = float(np.dot(rows[i * num_classes + c], rows[j * num_classes + c]))
                spread += math.sqrt(max(0.0, 2.0 - 2.0 * product))
    return total / len(pairs.distances) + center_weight * spread / max(1, num_classes * k * (k - 1))
