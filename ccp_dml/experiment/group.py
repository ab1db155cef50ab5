"""A group of runs: all folds of a cross-validation over classes, repeats with other seeds, or both."""

from __future__ import annotations

import itertools
import os
import shutil
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import tensorflow as tf

from ccp_dml import environment
from ccp_dml.config import ExperimentConfig
from ccp_dml.config.protocols import Member, members
from ccp_dml.data.options import ALL_FOLDS
from ccp_dml.distributed.cluster import is_chief
from ccp_dml.distributed.strategy import make_workers
from ccp_dml.distributed.workers import Workers
from ccp_dml.errors import UserError
from ccp_dml.evaluation import paper
from ccp_dml.evaluation.embedding import Embedded, concatenate
from ccp_dml.evaluation.group_report import Aggregate, GroupReport, Means, MemberScores, mean
from ccp_dml.evaluation.paper import PaperResults
from ccp_dml.experiment import single
from ccp_dml.experiment.finished import FinishedRun, scorer_of
from ccp_dml.experiment.model import forget_models
from ccp_dml.experiment.scoring import Scorer, read_embeddings
from ccp_dml.experiment.single import resumable
from ccp_dml.experiment.task import Task, load_task
from ccp_dml.run_directory import RunDirectory

# Normalisation of the embeddings of each fold before they are concatenated.
_CONCATENATED = {"concatenated": "none", "concatenated_unit": "unit"}


def train(config: ExperimentConfig) -> dict[str, Any]:
    """Trains all runs of a group that are not finished yet, and reports on all of them.

    Args:
        config: a valid and complete configuration of a group.

    Returns:
        The content of the group's `results.json`; empty on a worker that is not the chief.

    Raises:
        UserError: if data or a run directory cannot be used, or a loss diverges.
        Interrupted: on Ctrl-C or SIGTERM; the same flags continue the group.
    """
    started = time.monotonic()
    directory = RunDirectory.of(config)
    directory.check(config, writes=is_chief(config.devices, os.environ))
    runs, workers = members(config), make_workers(config.devices)
    # Unusable data is reported before a folder is made or replaced.
    data = _load_task(runs[0]).dataset.fingerprint()
    with resumable(directory, workers):
        is_continued = workers.from_chief(workers.is_chief and _begin(config, directory, data))
        started_as = "continuing" if is_continued else "new group"
        print(f"{directory.path}: {started_as}; {len(runs)} runs", flush=True)
        for number, member in enumerate(runs, start=1):
            print(f"\nrun {number} of {len(runs)}: {member}", flush=True)
            _train_member(member, directory, data, workers)
        results = _finish(config, directory, started) if workers.is_chief else {}
        # To the chief, a worker that ends earlier would look like one that failed.
        workers.from_chief(None)
    return results


def evaluate(config: ExperimentConfig, evaluated: ExperimentConfig) -> GroupReport:
    """Embeds and scores the test images with every model of a finished group.

    Args:
        config: the configuration of the group, with its folder.
        evaluated: the same, or with another data set or PCA.
    """
    _check_same_epochs(config)
    scorer = scorer_of(config, evaluated)
    print(f"scored: {scorer}", flush=True)

    def embed(member: Member) -> Embedded:
        forget_models()
        return FinishedRun(RunDirectory.of(member.config)).embed(scorer)

    def score(member: Member, embedded: Embedded) -> Means:
        return scorer.score(embedded, scorer.fit(embedded)).result.means()

    return _report(config, evaluated, scorer, embed, score)


def _check_same_epochs(config: ExperimentConfig) -> None:
    """Raises `UserError` if only some of the runs of a group have been continued to more epochs."""
    results = [RunDirectory.of(member.config).read_results() for member in members(config)]
    epochs = sorted({found["config"]["max_epochs"] for found in results})
    if len(epochs) > 1:
        raise UserError(
            f"--run_dir={config.run.run_dir}: some of its runs have --max_epochs={epochs[0]}, others "
            f"--max_epochs={epochs[-1]}; training with the latter continues them"
        )


def _begin(config: ExperimentConfig, directory: RunDirectory, data: str) -> bool:
    """Prepares the folder of the group; returns True if a group is continued there."""
    is_continued = directory.begin(config)
    directory.record_data(data)
    return is_continued


def _train_member(member: Member, group: RunDirectory, data: str, workers: Workers) -> None:
    """Trains a run of the group, unless it is finished; `data` is the fingerprint of the data."""
    directory = RunDirectory.of(member.config)
    if workers.from_chief(workers.is_chief and directory.holds_finished(member.config)):
        if workers.is_chief:
            directory.check_data(data)
        print(f"{directory.path}: finished before", flush=True)
        return
    forget_models()
    single.train(member.config, group)


def _finish(config: ExperimentConfig, directory: RunDirectory, started: float) -> dict[str, Any]:
    """Reports on the files that the runs have written; writes, prints and returns the results."""
    scorer = scorer_of(config, config)

    def embed(member: Member) -> Embedded:
        return read_embeddings(RunDirectory.of(member.config))

    def score(member: Member, embedded: Embedded) -> Means:
        return RunDirectory.of(member.config).read_results()["test"]

    report = _report(config, config, scorer, embed, score)
    results = {
        **report.to_dict(),
        "members": _members(config, report),
        "config": config.to_dict(),
        "versions": environment.versions(),
        "seconds": round(time.monotonic() - started, 1),
    }
    table = report.table()
    if config.monitoring.tensorboard:
        _write_to_tensorboard(directory.tensorboard, table)
    directory.finish(results, report.csv())
    print(f"\n{table}\nresults: {directory.results}\ntable: {directory.table}", flush=True)
    return results


def _report(
    config: ExperimentConfig,
    evaluated: ExperimentConfig,
    scorer: Scorer,
    embed: Callable[[Member], Embedded],
    score: Callable[[Member, Embedded], Means],
) -> GroupReport:
    """Scores the runs and their concatenated embeddings, one repeat in memory at a time."""
    scored: list[MemberScores] = []
    aggregates: dict[str, Aggregate] = {}

    def add(kind: str, embedded: Embedded, means: Means) -> None:
        dimensions = evaluated.evaluation.pca_dim or int(embedded.test.shape[1])
        earlier = aggregates[kind].repeats if kind in aggregates else ()
        aggregates[kind] = Aggregate(dimensions, (*earlier, means))

    for _, repeat in itertools.groupby(members(config), key=lambda member: member.repeat):
        folds: list[Embedded] = []
        scores: list[Means] = []
        for member in repeat:
            folds.append(embed(member))
            scores.append(score(member, folds[-1]))
            scored.append(MemberScores(member.fold, member.repeat, member.config.run.seed, scores[-1]))
        add("separate", folds[0], mean(scores))
        if len(folds) == 1:
            continue
        for kind, normalization in _CONCATENATED.items():
            concatenated = concatenate(folds, normalization)
            result = scorer.score(concatenated, scorer.fit(concatenated)).result
            add(kind, concatenated, mean([result.means()]))
    dimensions = {kind: aggregate.dimensions for kind, aggregate in aggregates.items()}
    return GroupReport(scored, aggregates, paper_results(config, evaluated, dimensions))


def paper_results(
    config: ExperimentConfig, evaluated: ExperimentConfig, dimensions: Mapping[str, int]
) -> PaperResults | None:
    """The values of the paper for a group that follows its protocol.

    Args:
        config: the configuration of the group.
        evaluated: the same, or with another data set or PCA.
        dimensions: dimensions of the embeddings by kind of aggregate.

    Returns:
        The values; None if the paper has none, or for another protocol or test.
    """
    has_folds_of_paper = config.split.fold == ALL_FOLDS and config.split.num_folds == paper.NUM_FOLDS
    has_same_test = evaluated.source.dataset == config.source.dataset and evaluated.evaluation.pca_dim is None
    if not has_folds_of_paper or not has_same_test:
        return None
    values: dict[str, dict[str, float]] = {}
    method = ""
    for kind in ("separate", "concatenated"):
        row = paper.published(config.source.dataset, config.loss.loss, dimensions[kind])
        if row is not None:
            method, values[kind] = row
    return PaperResults(method, values, _differences_from_paper(config)) if values else None


def _differences_from_paper(config: ExperimentConfig) -> tuple[str, ...]:
    """Another backbone, and flags that leave out or change images or labels, in words."""
    source, backbone = config.source, config.model.backbone
    flags = {
        "--check_counts=false": not source.check_counts,
        "--skip_bad_images": source.skip_bad_images,
        "--crop_to_box": source.crop_to_box,
        f"--label_noise={config.split.label_noise:g}": config.split.label_noise > 0,
        f"--prepared_shorter_side={source.prepared_shorter_side}": bool(source.prepared_shorter_side),
    }
    given = " ".join(flag for flag, is_given in flags.items() if is_given)
    differences = {
        f"its backbone is {paper.BACKBONE}, here {backbone}": backbone != paper.BACKBONE,
        f"other images or labels here: {given}": bool(given),
    }
    return tuple(text for text, applies in differences.items() if applies)


def _members(config: ExperimentConfig, report: GroupReport) -> list[dict[str, Any]]:
    """The runs with their scores, for `results.json`; their folders are relative to that of the group."""
    found = []
    for member, scores in zip(members(config), report.members):
        directory = RunDirectory.of(member.config)
        results = directory.read_results()
        found.append(
            {
                "fold": member.fold,
                "repeat": member.repeat,
                "seed": member.config.run.seed,
                "run_dir": directory.path.relative_to(RunDirectory.of(config).path).as_posix(),
                "best_epoch": results["best_epoch"],
                "test": scores.test,
                "validation": results["validation"],
            }
        )
    return found


def _write_to_tensorboard(folder: Path, table: str) -> None:
    """Writes the table as a text, in place of an earlier one."""
    shutil.rmtree(folder, ignore_errors=True)
    indented = "\n".join(f"    {line}" for line in table.splitlines())
    with tf.summary.create_file_writer(str(folder / "report")).as_default():
        tf.summary.text("results", indented, step=0, description="Test results of all runs, in percent.")


def _load_task(member: Member) -> Task:
    return load_task(member.config.source, member.config.split, member.config.batches)
