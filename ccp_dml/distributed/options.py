"""The options of the devices."""

from __future__ import annotations

import dataclasses

from ccp_dml.kinds import Choice, Integer, Switch
from ccp_dml.options import Change, Options, option


@dataclasses.dataclass(frozen=True)
class DeviceOptions(Options):
    """The devices that train."""

    strategy: str = option(
        "one",
        Choice(("one", "mirrored", "multi_worker", "tpu")),
        "Train on one device, all GPUs of this machine, those of several machines, or a TPU.",
        Change.FREE,
    )
    cluster: str = option(
        "tf_config",
        Choice(("tf_config", "kubernetes", "slurm")),
        "Source of the workers of multi_worker: the variable TF_CONFIG, Kubernetes or Slurm.",
        Change.FREE,
        {"strategy": ("multi_worker",)},
    )
    logical_cpus: int = option(
        0,
        Integer(0),
        "Number of devices into which the CPU is split, to try mirrored without GPUs; 0 for no split.",
        Change.FREE,
        {"strategy": ("mirrored",)},
    )
    shard_proxies: bool = option(
        False,
        Switch(),
        "Divide the proxies of the loss among the replicas, by class.",
        Change.FREE,
        {"strategy": ("mirrored", "multi_worker")},
    )
