"""The distribution strategy of the options, and the batches of its replicas."""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Callable
from typing import Any

import tensorflow as tf

from ccp_dml.commands import warn
from ccp_dml.distributed.options import DeviceOptions
from ccp_dml.distributed.workers import Workers
from ccp_dml.errors import UserError

# (first step, worker, number of workers, replicas of a worker) -> the stream that the worker's replicas read
LocalBatches = Callable[[int, int, int, int], tf.data.Dataset]

_RESOLVERS: dict[str, Callable[[], tf.distribute.cluster_resolver.ClusterResolver]] = {
    "tf_config": tf.distribute.cluster_resolver.TFConfigClusterResolver,
    "kubernetes": tf.distribute.cluster_resolver.KubernetesClusterResolver,
    "slurm": tf.distribute.cluster_resolver.SlurmClusterResolver,
}


def make_workers(options: DeviceOptions) -> Workers:
    """Creates the workers that train together, with their strategy; the same ones for the same devices.

    Call it before TensorFlow has initialised its devices.

    Raises:
        UserError: if the devices are not there.
    """
    return _workers_of(options.strategy, options.cluster, options.logical_cpus)


def distributed_batches(strategy: tf.distribute.Strategy, make: LocalBatches) -> Callable[[int], Any]:
    """Returns the stream of a strategy, of which each worker makes only its rows.

    Args:
        strategy: the strategy whose replicas read the stream.
        make: `make(first_step, worker, workers, replicas)` returns an endless dataset; its elements are, step
            by step, the rows of each replica of the worker, in the order of the replicas.

    Returns:
        A function of the first step. Its result gives the rows of each step to the replicas.
    """

    def batches(first_step: int) -> Any:
        def local_batches(context: tf.distribute.InputContext) -> tf.data.Dataset:
            workers = context.num_input_pipelines
            replicas = context.num_replicas_in_sync // workers
            dataset = make(first_step, context.input_pipeline_id, workers, replicas)
            # Otherwise the workers would ask each other before every step whether there is a next one.
            return dataset.apply(tf.data.experimental.assert_cardinality(tf.data.INFINITE_CARDINALITY))

        return strategy.distribute_datasets_from_function(local_batches)

    return batches


@functools.cache  # Two strategies of the same devices would use the same keys for their exchanges.
def _workers_of(strategy: str, cluster: str, logical_cpus: int) -> Workers:
    if strategy == "mirrored":
        return Workers(_mirrored(logical_cpus))
    if strategy == "multi_worker":
        return Workers(_multi_worker(cluster))
    if strategy == "tpu":
        # A TPU does not take batches of any size, so one of its cores embeds.
        return Workers(_tpu(), divides_work=False)
    return Workers()


def _mirrored(logical_cpus: int) -> tf.distribute.Strategy:
    if logical_cpus:
        return tf.distribute.MirroredStrategy(_split_cpu(logical_cpus))
    if not tf.config.list_logical_devices("GPU"):
        warn("--strategy=mirrored: there is no GPU, so one CPU trains; --logical_cpus=N tries N replicas")
    return tf.distribute.MirroredStrategy()


def _split_cpu(count: int) -> list[str]:
    """Divides the CPU into logical devices; returns their names."""
    [cpu] = tf.config.list_physical_devices("CPU")
    with contextlib.suppress(RuntimeError):  # TensorFlow has already initialised its devices.
        tf.config.set_logical_device_configuration(cpu, [tf.config.LogicalDeviceConfiguration()] * count)
    found = len(tf.config.list_logical_devices("CPU"))
    if found != count:
        raise UserError(
            f"--logical_cpus={count}: TensorFlow has already started with {found}; expected the flag when "
            "the process starts"
        )
    return [f"CPU:{number}" for number in range(count)]


def _multi_worker(cluster: str) -> tf.distribute.Strategy:
    try:
        resolver = _RESOLVERS[cluster]()
        resolver.cluster_spec()
    except Exception as error:  # Each resolver raises its own errors, even those of programs that it calls.
        raise UserError(
            f"--cluster={cluster}: the workers cannot be found; expected a cluster of this kind: {error}"
        ) from error
    try:
        return tf.distribute.MultiWorkerMirroredStrategy(cluster_resolver=resolver)
    except tf.errors.OpError as error:
        worker = f"{resolver.task_type} {resolver.task_id}"
        raise UserError(
            f"--strategy=multi_worker: {worker} cannot join the others; expected its port to be free on this "
            f"machine, and all workers to be running: {error.message}"
        ) from error


def _tpu() -> tf.distribute.Strategy:
    warn("--strategy=tpu has never been tried on a TPU: check its first epochs against --strategy=one")
    try:
        resolver = tf.distribute.cluster_resolver.TPUClusterResolver.connect()
    except Exception as error:  # There are many ways of not finding a TPU.
        raise UserError(f"--strategy=tpu: expected a TPU: {error}") from error
    return tf.distribute.TPUStrategy(resolver)
