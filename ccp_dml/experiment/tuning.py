"""Validation scores as a function of the flags, for searches over hyper-parameters."""

from __future__ import annotations

import tempfile
from pathlib import Path

import numpy as np

from ccp_dml.config import ExperimentConfig, checks, protocols
from ccp_dml.errors import ConfigError
from ccp_dml.experiment import single
from ccp_dml.experiment.build import build, build_trainer
from ccp_dml.experiment.model import forget_models
from ccp_dml.run_directory import RunDirectory


def validation_score(config: ExperimentConfig) -> float:
    """Trains and returns the best validation score, without reading a test image.

    Nothing is kept: checkpoints are in a temporary folder, and `--run_dir` is ignored. To evaluate the best
    flags, train with them.

    Args:
        config: any valid configuration, completed or not.

    Returns:
        The score `--monitor` on held-out training classes, of the weights that a run would evaluate; with
        folds or repeats, the mean over the runs.

    Raises:
        ConfigError: if the configuration is not valid, or monitors the test classes.
        UserError: if the data cannot be used, or the loss diverges.
    """
    checks.check(config)
    complete = protocols.resolve(config)
    if complete.training.monitor_split == "test" or complete.split.validation_fraction == 0:
        raise ConfigError(
            f"--monitor_split={complete.training.monitor_split}: a search expects validation classes, "
            "held out of the training classes"
        )
    return float(np.mean([_score(member.config) for member in protocols.members(complete)]))


def _score(config: ExperimentConfig) -> float:
    forget_models()
    run = build(config)
    with tempfile.TemporaryDirectory(prefix="ccp_dml-") as folder:
        directory = RunDirectory(Path(folder))
        single.fit(build_trainer(run, directory), config, directory)
    return run.monitored_scores()[config.training.monitor]
