"""The losses that are measured: of this library, and where another defines the same function, of that.

`ours` and `theirs` make a function that computes a loss and its gradients; each imports its own framework.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np

MEMORY_ROWS = 4096
MARGIN = 0.1
_UNIT = {"normalization": "unit"}

# Returns the value and the gradients for embeddings and proxies.
Step = Callable[[], tuple[float, list[np.ndarray]]]


@dataclass(frozen=True)
class Case:
    """A loss of this library, by its path and options.

    Attributes:
        theirs: what it is compared with, for the reader; empty if the other library has no such loss.
        per_class: samples of each class in the batch.
        proxies_per_class: 0 for a loss without proxies.
    """

    path: str
    options: dict[str, Any] = field(default_factory=dict)
    theirs: str = ""
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
    random = np.random.default_rng(0)
    in_batch = batch_size // case.per_class
    num_classes = max(100, in_batch)
    centres = random.standard_normal((num_classes, dimension))
    # So that distances within and between classes overlap as much in any dimension.
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


def bytes_of_theirs(case: Case, batch_size: int) -> int:
    """About what the other library needs at its peak; 0 where that grows with the pairs alone."""
    cube = batch_size**3
    if case.path == "cross_entropy":
        # Five float32 and a mask of each positive pair with the negative pairs of all anchors.
        return cube * 21
    if case.path != "triplet":
        return 0
    triplets = batch_size * (case.per_class - 1) * (batch_size - case.per_class)
    # Three int64 indices, once in parts and once joined, and about six numbers for the term and its gradient.
    listed = triplets * (2 * 24 + 6 * 8)
    # It builds the cube of bytes only where that has fewer elements than an int32 can count.
    return listed + (cube if cube < 2**31 else 0)


def ours(case: Case, problem: Problem) -> Step:
    import tensorflow as tf

    from ccp_dml.losses import registry

    dimension = problem.embeddings.shape[1]
    loss = registry.build(
        case.path, num_classes=problem.num_classes, embedding_size=dimension, options=case.options
    )
    if loss.proxies is not None:
        loss.proxies.embeddings.assign(problem.proxies.reshape(-1, dimension))
    if case.path.startswith("xbm/"):
        loss.memory.assign(problem.memory)
        loss.memory_labels.assign(problem.memory_labels)
        loss.memory_ids.assign(-1 - np.arange(MEMORY_ROWS))
        loss.rows_written.assign(MEMORY_ROWS)
    embeddings, labels = tf.constant(problem.embeddings), tf.constant(problem.labels)
    variables = list(loss.trainable_variables)

    @tf.function(autograph=False)
    def value_and_gradients(labels: tf.Tensor, embeddings: tf.Tensor) -> tuple[tf.Tensor, list[tf.Tensor]]:
        with tf.GradientTape() as tape:
            tape.watch(embeddings)
            value = loss(labels, embeddings)
        return value, tape.gradient(value, [embeddings, *variables])

    # Traced here, so that the first call does not hold the memory of tracing.
    traced = value_and_gradients.get_concrete_function(labels, embeddings)

    def step() -> tuple[float, list[np.ndarray]]:
        value, gradients = traced(labels, embeddings)
        return float(value), [gradient.numpy() for gradient in gradients]

    return step


def theirs(case: Case, problem: Problem) -> Step:
    import torch

    loss, proxies = _their_loss(case, problem)
    embeddings = torch.tensor(problem.embeddings, requires_grad=True)
    labels = torch.tensor(problem.labels)
    sources = [embeddings, *([] if proxies is None else [proxies])]

    def step() -> tuple[float, list[np.ndarray]]:
        for source in sources:
            source.grad = None
        value = loss(embeddings, labels)
        value.backward()
        gradients = [source.grad.numpy() for source in sources]
        return value.item(), gradients

    return step


def _their_loss(case: Case, problem: Problem) -> tuple[Callable[..., Any], Any]:
    """A function of (embeddings, labels) and the proxies that it trains, or None."""
    import torch
    from pytorch_metric_learning import distances, losses, miners, reducers

    batch_size, dimension = problem.embeddings.shape
    sizes = {"num_classes": problem.num_classes, "embedding_size": dimension}

    def with_proxies(loss: Any) -> tuple[Any, Any]:
        loss.proxies.data = torch.tensor(problem.proxies[0])
        return loss, loss.proxies

    if case.path == "triplet":
        loss = losses.TripletMarginLoss(margin=MARGIN)
        if case.options.get("triplets") != "semi_hard":
            return loss, None
        miner = miners.TripletMarginMiner(margin=MARGIN, type_of_triplets="semihard")
        return (lambda points, labels: loss(points, labels, miner(points, labels))), None
    if case.path == "original_contrastive":
        loss = losses.ContrastiveLoss(
            pos_margin=1.0,
            neg_margin=0.5,
            distance=distances.CosineSimilarity(),
            reducer=reducers.SumReducer(),
        )
        return (lambda points, labels: loss(points, labels) / batch_size), None
    if case.path == "multi_similarity":
        return losses.MultiSimilarityLoss(alpha=2.0, beta=40.0, base=0.5), None
    if case.path == "cross_entropy":
        return losses.NTXentLoss(temperature=0.1), None
    if case.path == "proxy_anchor":
        return with_proxies(losses.ProxyAnchorLoss(**sizes, margin=0.1, alpha=32.0))
    if case.path == "proxy_nca":
        # Its logits are minus the squared distances, 2 - 2 S, times the scale.
        return with_proxies(losses.ProxyNCALoss(**sizes, softmax_scale=0.5 / 0.11))
    if case.path == "soft_triple":
        return _their_soft_triple(case, problem, sizes)
    contrastive = losses.ContrastiveLoss(pos_margin=0.2652, neg_margin=0.5409)
    if case.path == "contrastive":
        return contrastive, None
    memory = losses.CrossBatchMemory(contrastive, dimension, memory_size=MEMORY_ROWS)
    memory.embedding_memory = torch.tensor(problem.memory)
    memory.label_memory = torch.tensor(problem.memory_labels)
    memory.has_been_filled = True
    return (lambda points, labels: contrastive(points, labels) + memory(points, labels)), None


def _their_soft_triple(case: Case, problem: Problem, sizes: dict[str, int]) -> tuple[Any, Any]:
    import torch
    from pytorch_metric_learning import losses, regularizers

    loss = losses.SoftTripleLoss(
        **sizes,
        centers_per_class=case.proxies_per_class,
        la=20.0,
        gamma=0.1,
        margin=0.01,
        weight_regularizer=regularizers.SparseCentersRegularizer(problem.num_classes, case.proxies_per_class),
        weight_reg_weight=0.2,
    )
    # Its columns go class by class.
    columns = problem.proxies.transpose(2, 1, 0).reshape(sizes["embedding_size"], -1)
    loss.fc.data = torch.tensor(np.ascontiguousarray(columns))
    return loss, loss.fc
