"""The distribution strategy that the options ask for, and the batches of its replicas."""

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
    """The processes, each with its devices, that train together.

    To be called before TensorFlow has run anything. Runs of one process have the same ones.

    Raises:
        UserError: if there are no such devices.
    """
    # A TPU embeds on one of its cores, as it does not take batches of any size.
    return _workers(options.strategy, options.cluster, options.logical_cpus)


def distributed_batches(strategy: tf.distribute.Strategy, make: LocalBatches) -> Callable[[int], Any]:
    """The stream of a strategy, of which every worker makes only its own rows.

    Args:
        strategy: whose replicas read it.
        make: `make(first_step, worker, workers, replicas)` gives an endless dataset whose elements are, step
            after step, the rows of each of the worker's replicas in their order.

    Returns:
        A function of the first step, whose result gives each step's rows to the replicas.
    """

    def batches(first_step: int) -> Any:
        def local(context: tf.distribute.InputContext) -> tf.data.Dataset:
            workers = context.num_input_pipelines
            replicas = context.num_replicas_in_sync // workers
            dataset = make(first_step, context.input_pipeline_id, workers, replicas)
            # Else the workers would ask one another before every step whether there is another.
            return dataset.apply(tf.data.experimental.assert_cardinality(tf.data.INFINITE_CARDINALITY))

        return strategy.distribute_datasets_from_function(local)

    return batches


@functools.cache  # Two strategies of the same devices would use the same keys for their exchanges.
def _workers(name: str, cluster: str, logical_cpus: int) -> Workers:
    if name == "mirrored":
        return Workers(_mirrored(logical_cpus))
    if name == "multi_worker":
        return Workers(_multi_worker(cluster))
    return Workers(_tpu(), divides_work=False) if name == "tpu" else Workers()


def _mirrored(logical_cpus: int) -> tf.distribute.Strategy:
    if logical_cpus:
        return tf.distribute.MirroredStrategy(_split_cpu(logical_cpus))
    if not tf.config.list_logical_devices("GPU"):
        warn("--strategy=mirrored: there is no GPU, so one CPU trains; --logical_cpus=N tries N replicas")
    return tf.distribute.MirroredStrategy()


def _split_cpu(count: int) -> list[str]:
    """Names of so many logical devices, into which the CPU is divided."""
    [cpu] = tf.config.list_physical_devices("CPU")
    with contextlib.suppress(RuntimeError):  # TensorFlow has begun with the devices that there are.
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
        worker = f"{resolver.task_type} {resolver.task_id}"
        raise UserError(
            f"--strategy=multi_worker: {worker} cannot join the others; expected its port to be free on this "
            f"machine, and all of them to be there: {error.message}"
        ) from error


def _tpu() -> tf.distribute.Strategy:
    warn("--strategy=tpu has never been tried on a TPU: check its first epochs against --strategy=one")
    try:
        resolver = tf.distribute.cluster_resolver.TPUClusterResolver.connect()
    except Exception as error:  # Whatever keeps a TPU from being found.
        raise UserError(f"--strategy=tpu: expected a TPU: {error}") from error
    return tf.distribute.TPUStrategy(resolver)
