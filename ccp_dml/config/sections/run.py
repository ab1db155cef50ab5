"""The flags of the run, and of what it leaves behind."""

from __future__ import annotations

import dataclasses

from ccp_dml.config.fields import Change, flag
from ccp_dml.config.values import Choice, Integer, Number, Steps, Switch, Text

LARGEST_SEED = 2**31 - 1


@dataclasses.dataclass(frozen=True)
class RunConfig:
    """The run and what it leaves behind."""

    run_dir: str | None = flag(
        None, Text("a folder"), "Folder of the run (default: runs/<config>-<UTC time>).", Change.FREE
    )
    overwrite: bool = flag(False, Switch(), "Replace the run that --run_dir holds.", Change.FREE)
    strategy: str = flag(
        "one",
        Choice(("one", "mirrored", "multi_worker", "tpu")),
        "What trains: one device, all GPUs of this machine, those of several machines, or a TPU.",
        Change.FREE,
    )
    cluster: str = flag(
        "tf_config",
        Choice(("tf_config", "kubernetes", "slurm")),
        "Where multi_worker learns of the workers: the variable TF_CONFIG, Kubernetes or Slurm.",
        Change.FREE,
    )
    logical_cpus: int = flag(
        0,
        Integer(0),
        "Try mirrored without GPUs: divide the CPU into so many devices; 0: do not.",
        Change.FREE,
    )
    shard_proxies: bool = flag(
        False, Switch(), "Spread the classes of the loss's proxies over the replicas.", Change.FREE
    )
    seed: int = flag(0, Integer(0, LARGEST_SEED), "Seed of everything random.")
    repeat: int = flag(1, Integer(1), "Runs of each fold, with the seeds seed, seed + 1, ….")
    checkpoint_keep: int = flag(
        2, Integer(1), "Last checkpoints kept, beside that of the best epoch.", Change.FREE
    )
    checkpoint_steps: int = flag(
        0, Integer(0), "Save every so many steps, besides after every epoch; 0: do not.", Change.FREE
    )
    checkpoint_minutes: float = flag(
        10.0, Number(low=0), "Save when so many minutes have passed since; 0: do not.", Change.FREE
    )
    tensorboard: bool = flag(True, Switch(), "Write TensorBoard events.", Change.FREE)
    tensorboard_panels: int = flag(
        8, Integer(0), "Validation queries shown with their neighbours; 0: none.", Change.FREE
    )
    tensorboard_histograms: bool = flag(
        True, Switch(), "Histograms of distances, once per epoch.", Change.FREE
    )
    tensorboard_projector: bool = flag(
        True, Switch(), "Embedding projector with sprites, at the end.", Change.FREE
    )
    profile: tuple[int, int] | None = flag(
        None,
        Steps(),
        "START:STOP: trace the chunks of steps in between for TensorBoard's profiler.",
        Change.FREE,
    )
