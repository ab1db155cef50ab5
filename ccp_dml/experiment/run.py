"""The commands train, evaluate and export, for single runs and groups of runs."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from typing import Any

from ccp_dml.config import ExperimentConfig
from ccp_dml.config.checks import with_other_evaluation
from ccp_dml.config.protocols import is_group, members
from ccp_dml.data.pipeline import reading_errors
from ccp_dml.distributed.cluster import is_chief
from ccp_dml.evaluation.report import format_table
from ccp_dml.experiment import group, single
from ccp_dml.experiment.finished import FinishedRun, scorer_of
from ccp_dml.experiment.model import forget_models
from ccp_dml.run_directory import RunDirectory


def train(config: ExperimentConfig) -> dict[str, Any]:
    """Trains or continues a run or a group of runs; see `single.train` and `group.train`."""
    with reading_errors(), _output_of_chief(config):
        return group.train(config) if is_group(config) else single.train(config)


def evaluate(run_dir: str, **changes: Any) -> dict[str, Any]:
    """Repeats the test evaluation of a finished run or group of runs and prints the results.

    Args:
        run_dir: its folder.
        **changes: other test images or a PCA, see `config.checks.with_other_evaluation`.

    Returns:
        The means of the test metrics; for a group, its report as in `results.json`.

    Raises:
        UserError: if the folder holds no finished run, or a change is not possible.
    """
    directory = RunDirectory(run_dir)
    config = directory.read_config()
    directory.read_results()
    evaluated = with_other_evaluation(config, **changes)
    if is_group(config):
        with reading_errors():
            report = group.evaluate(config, evaluated)
        print(report.table(), flush=True)
        return report.to_dict()
    scorer = scorer_of(config, evaluated)
    print(f"scored: {scorer}", flush=True)
    with reading_errors():
        embedded = FinishedRun(directory).embed(scorer)
    means = scorer.score(embedded, scorer.fit(embedded)).result.means()
    print(format_table({config.loss.loss: means}), flush=True)
    return means


def export(run_dir: str, output: str, pca_dim: int | None = None) -> None:
    """Exports the model of a finished run, or the models of all runs of a group.

    Args:
        run_dir: folder of the run or group.
        output: folder to write, new or empty. Models of a group go to `fold_f/repeat_r` in it.
        pca_dim: see `FinishedRun.export`; None: the `--pca_dim` of the run.

    Raises:
        UserError: if the folder holds no finished run, or `output` exists and is not empty.
    """
    directory = RunDirectory(run_dir)
    config = directory.read_config()
    directory.read_results()
    pca_dim = with_other_evaluation(config, pca_dim=pca_dim).evaluation.pca_dim
    if not is_group(config):
        FinishedRun(directory).export(output, pca_dim)
        return
    for member in members(config):
        forget_models()
        path = RunDirectory.of(member.config).path
        FinishedRun(RunDirectory(path)).export(f"{output}/{path.relative_to(directory.path)}", pca_dim)


@contextlib.contextmanager
def _output_of_chief(config: ExperimentConfig) -> Iterator[None]:
    """Context in which, of several workers, only the chief prints its progress."""
    if is_chief(config.devices, os.environ):
        yield
        return
    with open(os.devnull, "w", encoding="utf-8") as nowhere, contextlib.redirect_stdout(nowhere):
        yield
