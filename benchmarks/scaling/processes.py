"""Measurements on several replicas; each function is to be called in a new process."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Sequence
from typing import Any
from unittest import mock

import numpy as np

from benchmarks.common import measuring

# Of the training step.
IMAGES, STEPS = 32, 5
# Of the call of a loss.
BATCH_SIZE, DIMENSION = 64, 64
REPEATS, THREADS = 5, 1


def training_step(replicas: int, sharded: bool) -> dict[str, float]:
    """Measures a training step, divided among replicas, with whole or sharded proxies."""
    _limit_threads()
    from benchmarks.step.loop import SAMPLES_PER_CLASS, configure, make_batch, make_trainer

    flags = [f"--logical_cpus={replicas}", "--strategy=mirrored"] if replicas > 1 else []
    flags += ["--shard_proxies"] if sharded else []
    classes = IMAGES // SAMPLES_PER_CLASS
    config = configure("efficientnet_lite0", 64, STEPS, classes, "ccp/contrastive", *flags)
    with _counted_bytes() as handed_over:
        trainer = make_trainer(config, make_batch(config))
        trainer.trace()
    found = measuring.in_turns({"step": lambda: trainer.fit(trainer.epoch + 1)}, REPEATS)["step"]
    assert trainer.trace_count == 1, "the loop was traced again"
    step = measuring.summarize(found).per(STEPS)
    return {
        **_milliseconds(step),
        "images_per_second": IMAGES / step.median,
        # Every replica of the process has traced the step.
        "bytes_handed_over": sum(handed_over) // replicas,
    }


def proxy_loss(path: str, classes: int, sharded: bool, replicas: int) -> dict[str, float]:
    """Measures a call of a loss, its proxies whole or sharded over replicas."""
    tf = _limit_threads()
    from ccp_dml.losses.registry import build
    from ccp_dml.models.sharded_proxies import ShardedProxies

    strategy = tf.distribute.get_strategy()
    if replicas > 1:
        cpu = tf.config.list_physical_devices("CPU")[0]
        devices = [tf.config.LogicalDeviceConfiguration() for _ in range(replicas)]
        tf.config.set_logical_device_configuration(cpu, devices)
        strategy = tf.distribute.MirroredStrategy([f"CPU:{index}" for index in range(replicas)])
    before = measuring.megabytes("VmRSS")
    with strategy.scope():
        loss = build(path, num_classes=classes, embedding_size=DIMENSION, shard_proxies=sharded)
    if not sharded:
        # The initial values of sharded proxies do not depend on the number of shards.
        loss.proxies.reset(ShardedProxies(classes, 1, DIMENSION).by_class)
    generator = np.random.default_rng(0)
    labels = generator.integers(0, classes, BATCH_SIZE).astype(np.int32)
    embeddings = generator.normal(size=(BATCH_SIZE, DIMENSION)).astype(np.float32)
    embeddings /= np.linalg.norm(embeddings, axis=1, keepdims=True)
    call = _value_and_gradients(strategy, loss, tf.constant(labels), tf.constant(embeddings))
    # Making the proxies takes more memory than they do.
    measuring.reset_peak()
    with _counted_bytes() as handed_over:
        value = float(call())
    found = measuring.summarize([measuring.timed(call) for _ in range(REPEATS)])
    return {
        "value": value,
        **_milliseconds(found),
        "megabytes": measuring.megabytes("VmHWM") - before,
        # Every replica of the process has traced the function.
        "bytes_handed_over": sum(handed_over) // replicas,
    }


def _value_and_gradients(strategy: Any, loss: Any, labels: Any, embeddings: Any) -> Callable[[], Any]:
    import tensorflow as tf

    def on_replica() -> tf.Tensor:
        table = loss.proxies.embeddings
        with tf.GradientTape() as tape:
            tape.watch(embeddings)
            value = loss.call(labels, embeddings)
        # Gradients that are not used would not be computed.
        with tf.control_dependencies(tape.gradient(value, [embeddings, table])):
            return tf.identity(value)

    run = tf.function(lambda: strategy.run(on_replica))
    return lambda: strategy.experimental_local_results(run())[0].numpy()


@contextlib.contextmanager
def _counted_bytes() -> Iterator[list[int]]:
    """Context in which the bytes of tensors given to exchanges between replicas are listed while tracing."""
    from ccp_dml.distributed import replicas
    from ccp_dml.distributed.shards import ReplicaShards

    found: list[int] = []

    def counted(tensors: Sequence[Any]) -> None:
        if replicas.count() > 1:
            found.extend(tensor.shape.num_elements() * tensor.dtype.size for tensor in tensors)

    sum_over_replicas = replicas.sum_over_replicas
    all_sum, all_gather = ReplicaShards._all_sum, ReplicaShards._all_gather

    def counting(exchange: Callable[..., Any]) -> Callable[..., Any]:
        def exchanged(*args: Any) -> Any:
            counted(args[-1] if isinstance(args[-1], Sequence) else [args[-1]])
            return exchange(*args)

        return exchanged

    with (
        mock.patch.object(replicas, "sum_over_replicas", counting(sum_over_replicas)),
        mock.patch.object(ReplicaShards, "_all_sum", counting(all_sum)),
        mock.patch.object(ReplicaShards, "_all_gather", counting(all_gather)),
    ):
        yield found


def _limit_threads() -> Any:
    """TensorFlow with `THREADS` threads per operation."""
    import tensorflow as tf

    tf.config.threading.set_intra_op_parallelism_threads(THREADS)
    tf.get_logger().setLevel("ERROR")
    return tf


def _milliseconds(found: measuring.Times) -> dict[str, float]:
    return {
        "milliseconds": 1e3 * found.median,
        "least": 1e3 * found.least,
        "most": 1e3 * found.most,
        "processor_milliseconds": 1e3 * found.processor,
    }
