"""Four logical CPU devices; import this module before TensorFlow runs anything."""

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
    """Returns a strategy of 1, 2 or 4 replicas; that of 2 exchanges tensors in another way than that of 4."""
    if replicas == 1:
        return tf.distribute.get_strategy()
    # Collective operations do not allow groups of different sizes in one process.
    if replicas == 4:
        return make_workers(DeviceOptions(strategy="mirrored", logical_cpus=4)).strategy
    return tf.distribute.MirroredStrategy(
        [f"CPU:{i}" for i in range(replicas)], tf.distribute.ReductionToOneDevice()
    )
