"""Losses of pytorch-metric-learning as functions, for the benchmark of the losses."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from pytorch_metric_learning import distances, losses, miners, reducers, regularizers

from benchmarks.losses.cases import MARGIN, MEMORY_ROWS, Call, Case, Problem


def limit_threads(threads: int) -> None:
    """Sets the number of threads."""
    torch.set_num_threads(threads)


def make(case: Case, problem: Problem) -> Call:
    """A function that computes a loss and its gradients."""
    loss, proxies = _make_loss(case, problem)
    embeddings = torch.tensor(problem.embeddings, requires_grad=True)
    labels = torch.tensor(problem.labels)
    sources = [embeddings, *([] if proxies is None else [proxies])]

    def call() -> tuple[float, list[np.ndarray]]:
        for source in sources:
            source.grad = None
        value = loss(embeddings, labels)
        value.backward()
        gradients = [source.grad.numpy() for source in sources]
        return value.item(), gradients

    return call


def _make_loss(case: Case, problem: Problem) -> tuple[Callable[..., Any], Any]:
    """A function of (embeddings, labels) and the proxies that it trains, or None."""
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
        # The logits are minus the squared distances, 2 - 2 S, times the scale.
        return with_proxies(losses.ProxyNCALoss(**sizes, softmax_scale=0.5 / 0.11))
    if case.path == "soft_triple":
        return _make_soft_triple(case, problem, sizes)
    contrastive = losses.ContrastiveLoss(pos_margin=0.2652, neg_margin=0.5409)
    if case.path == "contrastive":
        return contrastive, None
    memory = losses.CrossBatchMemory(contrastive, dimension, memory_size=MEMORY_ROWS)
    memory.embedding_memory = torch.tensor(problem.memory)
    memory.label_memory = torch.tensor(problem.memory_labels)
    memory.has_been_filled = True
    return (lambda points, labels: contrastive(points, labels) + memory(points, labels)), None


def _make_soft_triple(case: Case, problem: Problem, sizes: dict[str, int]) -> tuple[Any, Any]:
    loss = losses.SoftTripleLoss(
        **sizes,
        centers_per_class=case.proxies_per_class,
        la=20.0,
        gamma=0.1,
        margin=0.01,
        weight_regularizer=regularizers.SparseCentersRegularizer(problem.num_classes, case.proxies_per_class),
        weight_reg_weight=0.2,
    )
    # The columns are in the order of the classes.
    columns = problem.proxies.transpose(2, 1, 0).reshape(sizes["embedding_size"], -1)
    loss.fc.data = torch.tensor(np.ascontiguousarray(columns))
    return loss, loss.fc
