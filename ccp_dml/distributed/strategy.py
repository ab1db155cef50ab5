"""The distribution strategy of a run: which devices, of which machines, train together."""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Callable

import tensorflow as tf

from ccp_dml.commands import warn
from ccp_dml.config import ExperimentConfig
from ccp_dml.distributed.replicas import scope
from ccp_dml.distributed.workers import Workers
from ccp_dml.errors import UserError

_RESOLVERS: dict[str, Callable[[], tf.distribute.cluster_resolver.ClusterResolver]] = {
    "tf_config": tf.distribute.cluster_resolver.TFConfigClusterResolver,
    "kubernetes": tf.distribute.cluster_resolver.KubernetesClusterResolver,
    "slurm": tf.distribute.cluster_resolver.SlurmClusterResolver,
}


def make_strategy(config: ExperimentConfig) -> tf.distribute.Strategy | None:
    """The strategy that the flags name; None for one device.

    To be called before TensorFlow has run anything. Runs of one process have the same one.

    Raises:
        UserError: if there are no such devices, or batches cannot be divided among them.
    """
    flags = config.run
    strategy = _strategy(flags.strategy, flags.cluster, flags.logical_cpus)
    if strategy is not None:
        _check_batch(config, strategy.num_replicas_in_sync)
    return strategy


def scope_of(strategy: tf.distribute.Strategy | None) -> contextlib.AbstractContextManager[None]:
    """Where model, loss and optimizer are made."""
    return contextlib.nullcontext() if strategy is None else scope(strategy)


def workers_of(config: ExperimentConfig, strategy: tf.distribute.Strategy | None) -> Workers:
    """The processes among which the work of a strategy is divided."""
    # A TPU embeds on one of its cores, as batches of any size are none that it takes.
    return _workers(None if config.run.strategy == "tpu" else strategy)


@functools.cache  # Each has functions of its own that are traced.
def _workers(strategy: tf.distribute.Strategy | None) -> Workers:
    return Workers(strategy)


@functools.cache  # Two strategies of the same devices would use the same keys for their exchanges.
def _strategy(name: str, cluster: str, logical_cpus: int) -> tf.distribute.Strategy | None:
    if name == "mirrored":
        return _mirrored(logical_cpus)
    if name == "multi_worker":
        return _multi_worker(cluster)
    return _tpu() if name == "tpu" else None


def _mirrored(logical_cpus: int) -> tf.distribute.Strategy:
    if logical_cpus:
        return tf.distribute.MirroredStrategy(_split_cpu(logical_cpus))
    if not tf.config.list_logical_devices("GPU"):
        warn("--strategy=mirrored: there is no GPU, so one CPU trains; --logical_cpus=N tries N replicas")
    return tf.distribute.MirroredStrategy()


def _split_cpu(count: int) -> list[str]:
    """Names of so many logical devices, into which the CPU is divided."""
    [cpu] = tf.config.list_physical_devices("CPU")
    with contextlib.suppress(RuntimeError):  # TensorFlow has begun: what there is must do.
        tf.config.set_logical_device_configuration(cpu, [tf.config.LogicalDeviceConfiguration()] * count)
    found = len(tf.config.list_logical_devices("CPU"))
    if found != count:
        raise UserError(
            f"--logical_cpus={count}: TensorFlow has begun with {found}; expected the flag at its start"
        )
    return [f"CPU:{number}" for number in range(count)]


def _multi_worker(cluster: str) -> tf.distribute.Strategy:
    try:
        resolver = _RESOLVERS[cluster]()
        resolver.cluster_spec()
    except Exception as error:  # Each resolver has errors of its own, down to those of a program it calls.
        raise UserError(
            f"--cluster={cluster}: expected to find the workers with it; it says: {error}"
        ) from error
    try:
        return tf.distribute.MultiWorkerMirroredStrategy(cluster_resolver=resolver)
    except tf.errors.OpError as error:
        own = f"{resolver.task_type} {resolver.task_id}"
        raise UserError(
            f"--strategy=multi_worker: {own} cannot join the others; expected its port to be free on this "
            f"machine, and all of them to be there: {error.message}"
        ) from error


def _tpu() -> tf.distribute.Strategy:
    warn("--strategy=tpu has never been tried on a TPU: check its first epochs against --strategy=one")
    try:
        resolver = tf.distribute.cluster_resolver.TPUClusterResolver.connect()
    except Exception as error:  # Whatever keeps a TPU from being found.
        raise UserError(f"--strategy=tpu: expected a TPU: {error}") from error
    return tf.distribute.TPUStrategy(resolver)


def _check_batch(config: ExperimentConfig, replicas: int) -> None:
    data = config.data
    by_classes = f"--classes_per_batch={data.classes_per_batch} --samples_per_class={data.samples_per_class}"
    given = by_classes if data.batch_size is None else f"--batch_size={data.batch_size}"
    size = data.batch_size or data.classes_per_batch * data.samples_per_class
    if size % replicas:
        raise UserError(
            f"{given}: --strategy={config.run.strategy} divides the {size} images of a batch among "
            f"{replicas} replicas; expected a multiple of {replicas}"
        )
