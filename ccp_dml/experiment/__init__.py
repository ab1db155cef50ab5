"""One experiment, from its configuration to results: the one place where the parts of the library meet."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from ccp_dml.config import ExperimentConfig


def train(config: ExperimentConfig) -> dict[str, Any]:
    """Trains, evaluates and exports into the run directory; see `ccp_dml.experiment.run.train`."""
    from ccp_dml.experiment import run

    return run.train(config)


def evaluate(run_dir: str) -> dict[str, Any]:
    """Repeats the test evaluation of a finished run; see `ccp_dml.experiment.run.evaluate`."""
    from ccp_dml.experiment import run

    return run.evaluate(run_dir)


def export(run_dir: str, output: str) -> None:
    """Exports the model of a finished run; see `ccp_dml.experiment.run.export`."""
    from ccp_dml.experiment import run

    run.export(run_dir, output)
