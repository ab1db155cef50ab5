"""One experiment, from its configuration to results: the one place where the parts of the library meet."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from ccp_dml.config import ExperimentConfig


def train(config: ExperimentConfig) -> dict[str, Any]:
    """Trains, evaluates and exports into the run directory; see `ccp_dml.experiment.run.train`."""
    from ccp_dml.experiment import run

    return run.train(config)


def validation_score(config: ExperimentConfig) -> float:
    """Trains and returns the validation score; see `ccp_dml.experiment.search.validation_score`."""
    from ccp_dml.experiment import search

    return search.validation_score(config)


def evaluate(run_dir: str, **changes: Any) -> dict[str, Any]:
    """Repeats the test evaluation of a finished run; see `ccp_dml.experiment.run.evaluate`."""
    from ccp_dml.experiment import run

    return run.evaluate(run_dir, **changes)


def export(run_dir: str, output: str, pca_dim: int | None = None) -> None:
    """Exports the model of a finished run; see `ccp_dml.experiment.run.export`."""
    from ccp_dml.experiment import run

    run.export(run_dir, output, pca_dim)
