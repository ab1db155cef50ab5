"""What makes a run repeat itself and go on after it was killed: seeds, determinism, checkpoints."""

from __future__ import annotations

import tensorflow as tf

from ccp_dml.commands import warn
from ccp_dml.config import ExperimentConfig
from ccp_dml.distributed.workers import ALONE, Workers
from ccp_dml.run_directory import RunDirectory
from ccp_dml.training.checkpoints import Checkpoints, Saver


def make_repeatable(config: ExperimentConfig) -> None:
    """Sets seeds and, as `--deterministic` says, lets operations give the same bits every time.

    For the whole process: TensorFlow has no other way.
    """
    tf.keras.utils.set_random_seed(config.run.seed)
    wanted = config.training.deterministic
    if wanted or (wanted is None and not tf.config.list_physical_devices("GPU")):
        tf.config.experimental.enable_op_determinism()


def make_saver(config: ExperimentConfig, directory: RunDirectory, workers: Workers = ALONE) -> Saver:
    """Where and when a run is saved."""
    flags = config.run
    return Saver(
        Checkpoints(directory.checkpoints, keep=flags.checkpoint_keep, warn=warn, workers=workers),
        every_steps=flags.checkpoint_steps,
        every_minutes=flags.checkpoint_minutes,
    )
