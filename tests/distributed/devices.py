"""Four logical CPU devices; to be imported before TensorFlow runs anything, in a process of its own."""

from __future__ import annotations

import functools

import tensorflow as tf

from ccp_dml.distributed.options import DeviceOptions
from ccp_dml.distributed.strategy import make_workers

tf.config.set_logical_device_configuration(
    tf.config.list_physical_devices("CPU")[0], [tf.config.LogicalDeviceConfiguration()] * 4
)


@functools.cache  # Two strategies of the same devices would use the same keys for their exchanges.
def strategy(replicas: int) -> tf.distribute.Strategy:
    """That of so many devices, the default one for 1; 2 and 4 exchange tensors in different ways."""
    if replicas == 1:
        return tf.distribute.get_strategy()
    # Collective operations would not let groups of different sizes be in one process.
    if replicas == 4:
        return make_workers(DeviceOptions(strategy="mirrored", logical_cpus=4)).strategy
    return tf.distribute.MirroredStrategy(
        [f"CPU:{i}" for i in range(replicas)], tf.distribute.ReductionToOneDevice()
    )
