"""Losses that are exact with sharded proxies, losses that are not, and shards that are threads."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import tensorflow as tf

from ccp_dml.distributed.shards import ReplicaShards
from ccp_dml.losses.base import MetricLoss
from ccp_dml.losses.wrapper import WrappingLoss
from ccp_dml.models.proxies import Proxies
from tests.losses.cases import NUM_CLASSES, SIZE, LossCase

# One of each mechanism: sums over columns, log-sum-exps over columns, anchors in shards, rows looked up.
REPRESENTATIVE = [
    LossCase("contrastive", {"proxies_per_class": 2, "negative_margin": 1.1}),
    LossCase("proxy_nca", {"proxies_per_class": 2, "margin": 0.1}),
    LossCase("proxy_anchor", {"proxies_per_class": 2, "alpha": 8.0}),
    LossCase("soft_triple", {"proxies_per_class": 3}),
    LossCase("ps/virtual_softmax/proxy_nca", {"mixing_rate": 0.3, "proxies_per_class": 2}),
    LossCase("ccp/multi_similarity", {"proxies_per_class": 2}),
]
_UNIT = {"normalization": "unit"}
FURTHER = [
    LossCase("contrastive", {"proxies_per_class": 1, "average": "all", **_UNIT, "negative_margin": 1.4}),
    LossCase("contrastive", {"proxies_per_class": 2, "proxy_anchor": True, "average": "all"}),
    LossCase("contrastive", {"proxies_per_class": 2, "distance": "squared_euclidean", "weight": 0.7}),
    LossCase("original_contrastive", {"proxies_per_class": 2, "margin": 0.1}),
    LossCase("original_contrastive", {"proxies_per_class": 2, "proxy_anchor": True, "margin": 0.1}),
    LossCase("multi_similarity", {"proxies_per_class": 2, "alpha": 14.0, "threshold": 0.6}),
    LossCase("margin", {"proxies_per_class": 2, "beta": 0.9, "beta_weight": 0.1, "average": "all"}),
    LossCase("margin", {"proxies_per_class": 2, "beta": 0.9, "beta_weight": 0.1, "proxy_anchor": True}),
    LossCase("cross_entropy", {"proxies_per_class": 2, "temperature": 0.3}),
    LossCase("triplet", {"proxies_per_class": 2, "proxy_anchor": True, "margin": 0.2}),
    LossCase("triplet", {"proxies_per_class": 2, "proxy_anchor": True, "average": "all"}),
    LossCase("triplet", {"proxies_per_class": 2, "proxy_anchor": True, "triplets": "semi_hard"}),
    LossCase("proxy_anchor", {"proxies_per_class": 1, **_UNIT}),
    LossCase("proxy_nca", {"proxies_per_class": 1}),
    LossCase("soft_triple", {"proxies_per_class": 2, "distance": "euclidean", "scale": 5.0}),
    LossCase("ccp/contrastive", {"proxies_per_class": 2, "pair_weight": 0.4}),
    LossCase("ccp/triplet", {"proxies_per_class": 2, "proxy_anchor": True}),
    LossCase("ps/proxy_nca", {"mixing_rate": 0.7}),
    LossCase("ps/proxy_anchor", {"mixing_rate": 0.3, "proxies_per_class": 2, "alpha": 8.0}),
    LossCase("virtual_softmax/proxy_nca", {"margin": 0.1}),
    LossCase("ccp/xbm/contrastive", {"memory_size": 12, "start_step": 0}),
    LossCase("mdr/proxy_nca", {"regularization_weight": 0.5}),
    LossCase("mdr/ccp/contrastive", {**_UNIT, "negative_margin": 1.1}),
]
EXACT = [pytest.param(case, id=case.id) for case in REPRESENTATIVE] + [
    pytest.param(case, id=case.id, marks=pytest.mark.slow) for case in FURTHER
]

REFUSED = [
    LossCase("triplet", {"proxies_per_class": 2}),
    LossCase("triplet", {"proxies_per_class": 2, "proxy_anchor": True, "triplets": "hardest"}),
    LossCase("contrastive", {"proxies_per_class": 2, "miner": "hard_negatives"}),
    LossCase("contrastive", {"proxies_per_class": 2, "proxy_anchor": True, "miner": "distance_weighted"}),
    LossCase("contrastive", {"proxies_per_class": 2, "proxy_pairs": True}),
    LossCase("margin", {"proxies_per_class": 2, "per_class": True}),
    LossCase("ccp/triplet"),
    LossCase("ccp/contrastive", {"miner": "hard_negatives"}),
]

# A function of the index of a shard, and of the object that combines it with the others.
Work = Callable[[int, ReplicaShards], Any]


class _ThreadShards(ReplicaShards):
    """A shard in a thread of its own, which waits for the others where a replica does."""

    def __init__(self, index: int, slots: list[Any], barrier: threading.Barrier) -> None:
        self.index, self._slots, self._barrier = index, slots, barrier

    def _exchanged(self, values: tf.Tensor) -> list[tf.Tensor]:
        self._slots[self.index] = values
        self._barrier.wait()
        everything = list(self._slots)
        self._barrier.wait()
        return everything

    def _all_sum(self, values: tf.Tensor) -> tf.Tensor:
        return tf.add_n(self._exchanged(values))

    def _all_gather(self, values: tf.Tensor) -> tf.Tensor:
        return tf.concat(self._exchanged(values), axis=0)

    def _index(self) -> tf.Tensor:
        return tf.constant(self.index)


class ShardOfProxies:
    """The proxies of `size` classes from `first` on, of a table [K, C, D]; zeros beyond the last class."""

    def __init__(self, table: np.ndarray, first: int, size: int, shards: ReplicaShards) -> None:
        self.proxies_per_class, self.num_classes, self.embedding_size = table.shape
        self.classes = [c if c < self.num_classes else -1 for c in range(first, first + size)]
        self.shards = shards
        rows = [table[k, c] if c >= 0 else 0.0 * table[0, 0] for k in range(len(table)) for c in self.classes]
        self.embeddings = tf.Variable(np.stack(rows))
        self.labels = tf.constant(self.classes * self.proxies_per_class, tf.int32)

    @property
    def by_class(self) -> tf.Tensor:
        return tf.reshape(self.embeddings, [self.proxies_per_class, -1, self.embedding_size])

    def of_classes(self, classes: tf.Tensor) -> tf.Tensor:
        hot = tf.cast(tf.equal(classes[:, tf.newaxis], self.classes), tf.float32)
        return self.shards.sum(tf.einsum("bc,kcd->kbd", hot, self.by_class))


def in_threads(count: int, work: Work) -> list[Any]:
    """Runs `work` for all shards at once, each in a thread; returns their results."""
    slots: list[Any] = [None] * count
    results: list[Any] = [None] * count
    barrier = threading.Barrier(count, timeout=60.0)

    def run(index: int) -> None:
        try:
            results[index] = work(index, _ThreadShards(index, slots, barrier))
        except BaseException as error:
            results[index] = error
            barrier.abort()

    threads = [threading.Thread(target=run, args=(index,)) for index in range(count)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for result in results:
        if isinstance(result, BaseException) and not isinstance(result, threading.BrokenBarrierError):
            raise result
    return results


def with_proxies(loss: MetricLoss, proxies: Any) -> MetricLoss:
    """Replaces the proxies of a loss and of all losses inside it."""
    layer: MetricLoss = loss
    while True:
        if layer.proxies is not None:
            layer.proxies = proxies
        if not isinstance(layer, WrappingLoss):
            return loss
        layer = layer.base


def table_of(seed: int, proxies: Proxies) -> np.ndarray:
    """Draws proxies [K, C, D] with norms around 1."""
    shape = proxies.proxies_per_class, NUM_CLASSES, SIZE
    return np.random.default_rng(seed).normal(0.2, 0.5, shape).astype(np.float32)
