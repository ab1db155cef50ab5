"""Losses of the benchmark, and the batches on which they are measured."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np

MEMORY_ROWS = 4096
MARGIN = 0.1
_UNIT = {"normalization": "unit"}

# Returns the value and the gradients for embeddings and proxies.
Call = Callable[[], tuple[float, list[np.ndarray]]]


@dataclass(frozen=True)
class Case:
    """A loss of this library, by its path and options.

    Attributes:
        path: as of `--loss`.
        options: parameters of the loss by name.
        peer: the same function in pytorch-metric-learning, in words; empty if there is none.
        per_class: samples of each class in the batch.
        proxies_per_class: 0 for a loss without proxies.
    """

    path: str
    options: dict[str, Any] = field(default_factory=dict)
    peer: str = ""
    per_class: int = 4
    proxies_per_class: int = 0


CASES: dict[str, Case] = {
    "triplet": Case("triplet", {"margin": MARGIN, **_UNIT}, "TripletMarginLoss, all triplets"),
    "triplet_semi_hard": Case(
        "triplet",
        {"margin": MARGIN, "triplets": "semi_hard", **_UNIT},
        "TripletMarginMiner (semihard), TripletMarginLoss",
    ),
    "contrastive": Case("contrastive", _UNIT, "ContrastiveLoss"),
    "original_contrastive": Case(
        "original_contrastive", {"slack": 0.0, **_UNIT}, "ContrastiveLoss, cosine, SumReducer"
    ),
    "multi_similarity": Case("multi_similarity", _UNIT, "MultiSimilarityLoss"),
    "cross_entropy": Case(
        "cross_entropy",
        {"temperature": 0.1, "distance": "cosine", **_UNIT},
        "NTXentLoss, two samples a class",
        per_class=2,
    ),
    "proxy_anchor": Case("proxy_anchor", _UNIT, "ProxyAnchorLoss", proxies_per_class=1),
    "proxy_nca": Case("proxy_nca", _UNIT, "ProxyNCALoss", proxies_per_class=1),
    "soft_triple": Case(
        "soft_triple", {"proxies_per_class": 10, **_UNIT}, "SoftTripleLoss, regularised", proxies_per_class=10
    ),
    "xbm_contrastive": Case(
        "xbm/contrastive",
        {"memory_size": MEMORY_ROWS, "start_step": 0, **_UNIT},
        "ContrastiveLoss + CrossBatchMemory of it",
    ),
    "margin": Case("margin", _UNIT),
    "ccp_contrastive": Case("ccp/contrastive", {"proxies_per_class": 4, **_UNIT}, proxies_per_class=4),
    "mdr_contrastive": Case("mdr/contrastive", {"normalization": "none"}),
    "ps_proxy_anchor": Case("ps/proxy_anchor", _UNIT, proxies_per_class=1),
    "virtual_softmax": Case("virtual_softmax/proxy_nca", _UNIT, proxies_per_class=1),
}


@dataclass(frozen=True)
class Problem:
    """A batch, proxies and memory, the same for both libraries.

    Attributes:
        embeddings: float32 [B, D], not normalised, nearer to their class than to others.
        labels: int64 [B], sample-major.
        num_classes: number C of classes that have proxies; at least 100.
        proxies: float32 [K, C, D].
        memory: float32 [M, D].
        memory_labels: int64 [M].
    """

    embeddings: np.ndarray
    labels: np.ndarray
    num_classes: int
    proxies: np.ndarray
    memory: np.ndarray
    memory_labels: np.ndarray


def make_problem(case: Case, batch_size: int, dimension: int) -> Problem:
    """A random batch, the same in every process."""
    random = np.random.default_rng(0)
    in_batch = batch_size // case.per_class
    num_classes = max(100, in_batch)
    centres = random.standard_normal((num_classes, dimension))
    # With this noise, distances within and between classes overlap equally in every dimension.
    noise = 1.3 * (dimension / 128) ** 0.25

    def samples(labels: np.ndarray) -> np.ndarray:
        return (centres[labels] + noise * random.standard_normal((len(labels), dimension))).astype(np.float32)

    labels = np.arange(batch_size) % in_batch
    memory_labels = np.arange(MEMORY_ROWS) % num_classes
    proxies = centres + noise * random.standard_normal((case.proxies_per_class, num_classes, dimension))
    return Problem(
        samples(labels),
        labels,
        num_classes,
        proxies.astype(np.float32),
        samples(memory_labels),
        memory_labels,
    )


def peer_bytes(case: Case, batch_size: int) -> int:
    """Estimated peak memory of pytorch-metric-learning; 0 where it grows with the pairs alone."""
    cube = batch_size**3
    if case.path == "cross_entropy":
        # Five float32 and a mask for each positive pair and the negative pairs of all anchors.
        return cube * 21
    if case.path != "triplet":
        return 0
    triplets = batch_size * (case.per_class - 1) * (batch_size - case.per_class)
    # Three int64 indices, in pieces and joined, and about six numbers for the term and its gradient.
    listed = triplets * (2 * 24 + 6 * 8)
    # It builds the cube of bytes only where that has fewer elements than an int32 can count.
    return listed + (cube if cube < 2**31 else 0)
