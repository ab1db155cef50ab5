"""A process with R replicas on logical CPU devices that compares sharded with unsharded losses.

    python -m tests.distributed.sharded_replicas R FOLDER [--all]

Devices have to be created before TensorFlow starts. So the tests run this module and read its output: JSON
with the largest deviation of each figure. Deviations after one step are relative to the largest value;
deviations after 20 steps are relative to the effect of rounding that a nudged run shows.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow as tf

from ccp_dml.losses.base import MetricLoss
from ccp_dml.losses.registry import build
from ccp_dml.models.proxies import Proxies
from ccp_dml.models.sharded_proxies import ShardedProxies
from tests.distributed.runs import NUDGE, ROUNDINGS
from tests.losses.cases import NUM_CLASSES, SIZE, LossCase, batch
from tests.losses.shard_cases import FURTHER, REPRESENTATIVE, table_of

STEPS = 20
Deviations = dict[str, float]


def main(replicas: int, folder: Path, everything: bool) -> None:
    cpu = tf.config.list_physical_devices("CPU")[0]
    devices = [tf.config.LogicalDeviceConfiguration() for _ in range(replicas)]
    tf.config.set_logical_device_configuration(cpu, devices)
    strategy = _mirrored(replicas)
    results = {}
    for case in REPRESENTATIVE + (FURTHER if everything else []):
        results[case.id] = compare(strategy, case)
    results["20 steps of SGD"] = train(strategy, "sgd")
    results["20 steps of Adam"] = train(strategy, "adam")
    results["continued"] = continued(strategy, folder)
    results["table"] = table(strategy, folder)
    print(json.dumps(results))


def _mirrored(replicas: int, exchange: Any = None) -> tf.distribute.Strategy:
    return tf.distribute.MirroredStrategy([f"CPU:{index}" for index in range(replicas)], exchange)


def _two_others() -> tf.distribute.Strategy:
    """Returns a strategy of two of the devices; collective operations would mix it up with the first one."""
    return _mirrored(2, tf.distribute.ReductionToOneDevice())


def make(case: LossCase, shard_proxies: bool) -> MetricLoss:
    loss = build(
        case.path,
        num_classes=NUM_CLASSES,
        embedding_size=SIZE,
        shard_proxies=shard_proxies,
        options=case.options,
    )
    loss.proxies.reset(table_of(7, loss.proxies))
    return loss


def deviation(found: Any, expected: Any) -> float:
    found, expected = np.asarray(found), np.asarray(expected)
    assert found.shape == expected.shape
    return float(np.abs(found - expected).max() / np.abs(expected).max())


def whole_table(strategy: tf.distribute.Strategy, loss: MetricLoss, shards: Any) -> np.ndarray:
    """Puts shards [n * K, D] together: [K, C, D]; raises unless the rows of no class are zero."""
    per_class = loss.proxies.proxies_per_class
    local = strategy.experimental_local_results(shards)
    rows = np.concatenate([shard.numpy().reshape(per_class, -1, SIZE) for shard in local], axis=1)
    assert not rows[:, NUM_CLASSES:].any()
    return rows[:, :NUM_CLASSES]


def compare(strategy: tf.distribute.Strategy, case: LossCase) -> Deviations:
    """Compares value and gradients of two consecutive batches."""
    unsharded = make(case, shard_proxies=False)
    with strategy.scope():
        sharded = make(case, shard_proxies=True)
    on_replicas, worst = gradients_of(sharded), dict.fromkeys(("value", "embeddings", "proxies"), 0.0)
    run = tf.function(lambda *args: strategy.run(on_replicas, args=args))
    for seed in range(2):
        labels, embeddings = (tf.convert_to_tensor(array) for array in batch(seed))
        value, of_embeddings, of_table = gradients_of(unsharded)(labels, embeddings)
        found = run(labels, embeddings)
        for name, expected, results in (
            ("value", value, found[0]),
            ("embeddings", of_embeddings, found[1]),
        ):
            for result in strategy.experimental_local_results(results):
                worst[name] = max(worst[name], deviation(result, expected))
        table_gradient = whole_table(strategy, sharded, found[2])
        expected = np.reshape(of_table, table_gradient.shape)
        worst["proxies"] = max(worst["proxies"], deviation(table_gradient, expected))
    return worst


def gradients_of(loss: MetricLoss) -> Any:
    def gradients(labels: tf.Tensor, embeddings: tf.Tensor) -> list[tf.Tensor]:
        with tf.GradientTape() as tape:
            tape.watch(embeddings)
            value = loss.call(labels, embeddings)
        of_embeddings, of_table = tape.gradient(value, [embeddings, loss.proxies.embeddings])
        return [value, of_embeddings, tf.convert_to_tensor(of_table)]

    return gradients


class Training:
    """One linear layer and its proxies, trained by SGD with momentum or by Adam from equal weights.

    The loss is smooth: unit vectors, no hinges.
    """

    def __init__(self, strategy: tf.distribute.Strategy | None, optimizer: str, nudge: float = 0.0) -> None:
        self._nudge = nudge
        self._run = tf.function(self._step)
        if strategy is None:
            self._make(optimizer, shard_proxies=False)
        else:
            with strategy.scope():
                self._make(optimizer, shard_proxies=True)
            self.loss.proxies.checkpoint_as_table(self.of_proxies.variables)
            self._run = tf.function(lambda images: strategy.run(self._step, args=(images,)))
        self.checkpoint = tf.train.Checkpoint(
            loss=self.loss, weights=self.weights, of_weights=self.of_weights, of_proxies=self.of_proxies
        )

    def _make(self, optimizer: str, shard_proxies: bool) -> None:
        self.loss = make(
            LossCase("proxy_nca", {"proxies_per_class": 2, "normalization": "unit"}), shard_proxies
        )
        start = np.random.default_rng(1).normal(0.0, 0.3, (6, SIZE)).astype(np.float32)
        signs = np.where(np.arange(start.size) % 2, 1.0, -1.0).reshape(start.shape)
        self.weights = tf.Variable(start * (1.0 + self._nudge * signs).astype(np.float32))
        self.of_weights, self.of_proxies = (
            tf.keras.optimizers.SGD(0.2, momentum=0.9)
            if optimizer == "sgd"
            else tf.keras.optimizers.Adam(0.02)
            for _ in range(2)
        )
        self.of_weights.build([self.weights])
        self.of_proxies.build([self.loss.proxies.embeddings])

    def _step(self, images: tf.Tensor) -> None:
        table = self.loss.proxies.embeddings
        with tf.GradientTape() as tape:
            value = self.loss.call(tf.constant(batch(0)[0]), tf.matmul(images, self.weights))
        of_weights, of_table = tape.gradient(value, [self.weights, table])
        # Each replica has the gradient of all weights and of its shard of the proxies.
        self.of_weights.apply_gradients([(of_weights, self.weights)], skip_gradients_aggregation=True)
        self.of_proxies.apply_gradients([(of_table, table)], skip_gradients_aggregation=True)

    def steps(self, first: int, last: int) -> Training:
        for number in range(first, last):
            images = np.random.default_rng(number).normal(size=(12, 6)).astype(np.float32)
            self._run(tf.constant(images))
        return self

    @property
    def values(self) -> dict[str, np.ndarray]:
        """Weights, and proxies [K, C, D]."""
        return {"weights": self.weights.numpy(), "proxies": self.loss.proxies.whole().numpy()}


class Reference:
    """A run on one device, and the same run with nudged weights."""

    def __init__(self, optimizer: str) -> None:
        self._run, nudged = (
            Training(None, optimizer, nudge).steps(0, STEPS).values for nudge in (0.0, NUDGE)
        )
        start = Training(None, optimizer).values
        assert deviation(self._run["proxies"], start["proxies"]) > 0.1
        growth = (deviation(nudged[name], values) for name, values in self._run.items())
        self._rounding = ROUNDINGS * max(NUDGE, *growth)

    def deviations(self, found: Training) -> Deviations:
        """Returns deviations of a run from this one, relative to the largest that rounding may cause."""
        return {
            name: deviation(found.values[name], values) / self._rounding for name, values in self._run.items()
        }


def train(strategy: tf.distribute.Strategy, optimizer: str) -> Deviations:
    """Compares weights and proxies after 20 steps."""
    return Reference(optimizer).deviations(Training(strategy, optimizer).steps(0, STEPS))


def continued(strategy: tf.distribute.Strategy, folder: Path) -> Deviations:
    """Compares runs that continue from a checkpoint half way, on other numbers of replicas."""
    reference = Reference("adam")
    path = Training(strategy, "adam").steps(0, STEPS // 2).checkpoint.write(str(folder / "half"))
    found: Deviations = {}
    for name, other in (("the same", strategy), ("two", _two_others()), ("none", None)):
        again = Training(other, "adam")
        again.checkpoint.read(path).assert_consumed()
        deviations = reference.deviations(again.steps(STEPS // 2, STEPS))
        found.update({f"{kind}, {name}": worst for kind, worst in deviations.items()})
    return found


def table(strategy: tf.distribute.Strategy, folder: Path) -> Deviations:
    """Compares tables after a reset, and after checkpoints of other numbers of replicas."""
    sizes = (NUM_CLASSES, 3, SIZE)
    with strategy.scope():
        proxies = ShardedProxies(*sizes, seed=3)
    one = ShardedProxies(*sizes, seed=3)
    found = {"first values": deviation(proxies.whole(), one.by_class)}
    new = np.random.default_rng(2).normal(size=(3, NUM_CLASSES, SIZE)).astype(np.float32)
    proxies.reset(new)
    found["reset"] = deviation(proxies.whole(), new)
    path = tf.train.Checkpoint(proxies=proxies).write(str(folder / "checkpoint"))
    whole = Proxies(*sizes)
    tf.train.Checkpoint(proxies=whole).read(path).assert_consumed()
    found["read without shards"] = deviation(whole.by_class, new)
    with _two_others().scope():
        other = ShardedProxies(*sizes)
    tf.train.Checkpoint(proxies=other).read(path).assert_consumed()
    found["read by 2 replicas"] = deviation(other.whole(), new)
    whole.reset(new + 1.0)
    path = tf.train.Checkpoint(proxies=whole).write(str(folder / "whole"))
    tf.train.Checkpoint(proxies=proxies).read(path).assert_consumed()
    found["written without shards"] = deviation(proxies.whole(), new + 1.0)
    return found


if __name__ == "__main__":
    main(int(sys.argv[1]), Path(sys.argv[2]), "--all" in sys.argv[3:])
