"""A process that holds one proxy loss, whole or sharded over replicas, and tells what a call of it takes.

python -m benchmarks.scaling_worker '{"loss": "proxy_nca", "kind": "sharded", "replicas": 2, ...}'
"""

from __future__ import annotations

import json
import os
import statistics
import sys
import time
from typing import Any

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import numpy as np
import tensorflow as tf

from benchmarks import measuring
from ccp_dml.distributed.shards import ReplicaShards
from ccp_dml.losses.registry import build
from ccp_dml.models.sharded_proxies import ShardedProxies


class _CountingShards(ReplicaShards):
    """Counts, while a function is traced, the bytes that each replica hands over."""

    def __init__(self) -> None:
        self.bytes = 0

    def _all_sum(self, values: tf.Tensor) -> tf.Tensor:
        return super()._all_sum(self._counted(values))

    def _all_gather(self, values: tf.Tensor) -> tf.Tensor:
        return super()._all_gather(self._counted(values))

    def _counted(self, values: tf.Tensor) -> tf.Tensor:
        self.bytes += values.shape.num_elements() * values.dtype.size
        return values


def main(asked: dict[str, Any]) -> dict[str, float]:
    replicas = asked["replicas"]
    cpu = tf.config.list_physical_devices("CPU")[0]
    devices = [tf.config.LogicalDeviceConfiguration() for _ in range(replicas)]
    tf.config.set_logical_device_configuration(cpu, devices)
    tf.config.threading.set_intra_op_parallelism_threads(asked["threads"])
    strategy = tf.distribute.get_strategy()
    if replicas > 1:
        strategy = tf.distribute.MirroredStrategy([f"CPU:{index}" for index in range(replicas)])
    before = measuring.megabytes("VmRSS")
    with strategy.scope():
        loss = build(
            asked["loss"],
            num_classes=asked["classes"],
            embedding_size=asked["dimension"],
            shard_proxies=asked["kind"] == "sharded",
        )
    if asked["kind"] == "whole":
        # The first values of sharded proxies, which do not depend on the number of shards.
        sizes = asked["classes"], 1, asked["dimension"]
        loss.proxies.reset(ShardedProxies(*sizes).by_class)
    counting = _CountingShards()
    if not loss.proxies.shards.is_single:
        loss.proxies.shards = counting
    step = _step(strategy, loss, *_batch(asked))
    # To make proxies takes more memory than they do.
    measuring.forget_peak()
    value = float(step())
    seconds = [_time(step) for _ in range(asked["repeats"])]
    elapsed, processor = ([1e3 * second for second in column] for column in zip(*seconds))
    return {
        "value": value,
        "milliseconds": statistics.median(elapsed),
        "least": min(elapsed),
        "most": max(elapsed),
        "processor_milliseconds": statistics.median(processor),
        "megabytes": measuring.megabytes("VmHWM") - before,
        # Every replica of this process has traced the function.
        "bytes_handed_over": counting.bytes // replicas,
    }


def _batch(asked: dict[str, Any]) -> tuple[tf.Tensor, tf.Tensor]:
    """Labels, and embeddings of unit length."""
    random = np.random.default_rng(0)
    labels = random.integers(0, asked["classes"], asked["batch_size"]).astype(np.int32)
    embeddings = random.normal(size=(asked["batch_size"], asked["dimension"])).astype(np.float32)
    return tf.constant(labels), tf.constant(embeddings / np.linalg.norm(embeddings, axis=1, keepdims=True))


def _step(strategy: tf.distribute.Strategy, loss: Any, labels: tf.Tensor, embeddings: tf.Tensor) -> Any:
    def on_replica() -> tf.Tensor:
        table = loss.proxies.embeddings
        with tf.GradientTape() as tape:
            tape.watch(embeddings)
            value = loss.call(labels, embeddings)
        of_embeddings, of_table = tape.gradient(value, [embeddings, table])
        # Gradients that nobody asks for would not be computed.
        with tf.control_dependencies([of_embeddings, of_table]):
            return tf.identity(value)

    run = tf.function(lambda: strategy.run(on_replica))
    return lambda: strategy.experimental_local_results(run())[0].numpy()


def _time(step: Any) -> tuple[float, float]:
    started, processor_started = time.perf_counter(), time.process_time()
    step()
    return time.perf_counter() - started, time.process_time() - processor_started


if __name__ == "__main__":
    print(json.dumps(main(json.loads(sys.argv[1]))))
