"""A group of runs: all folds of a cross-validation over classes, repeats with other seeds, or both."""

from __future__ import annotations

import itertools
import shutil
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import tensorflow as tf

from ccp_dml import environment
from ccp_dml.config import ExperimentConfig
from ccp_dml.config.protocols import Member
from ccp_dml.distributed.strategy import make_strategy, workers_of
from ccp_dml.distributed.workers import Workers
from ccp_dml.evaluation.embedding import Embedded, concatenate
from ccp_dml.evaluation.report import Aggregate, GroupReport, Means, MemberScores, mean
from ccp_dml.experiment import single
from ccp_dml.experiment.endings import resumable
from ccp_dml.experiment.finished import FinishedRun, forget_models, scorer_of
from ccp_dml.experiment.published import published
from ccp_dml.experiment.scoring import Scorer, read_embeddings
from ccp_dml.experiment.task import load_task
from ccp_dml.run_directory import RunDirectory

# How the embeddings of the folds are normalised before they are put side by side.
_CONCATENATED = {"concatenated": "none", "concatenated_unit": "unit"}


def train(config: ExperimentConfig) -> dict[str, Any]:
    """Makes all runs of a group, those that are not finished yet, and reports on them together.

    Args:
        config: valid and complete, of a group.

    Returns:
        The content of the group's `results.json`; empty on a worker that is not the chief.

    Raises:
        UserError: if data or a run directory cannot be used, or a loss diverges.
        Interrupted: on Ctrl-C or SIGTERM; the same flags continue the group.
    """
    started = time.monotonic()
    directory = RunDirectory.of(config)
    directory.check(config, writes=config.writes)
    members = config.members
    workers = workers_of(config, make_strategy(config))
    # Unusable data is found before a folder is made or replaced.
    load_task(members[0].config.data)
    with resumable(directory, workers):
        continued = workers.from_chief(workers.is_chief and directory.begin(config))
    print(f"{directory.path}: {'continuing' if continued else 'new group'}; {len(members)} runs", flush=True)
    with resumable(directory, workers):
        for number, member in enumerate(members, start=1):
            print(f"\nrun {number} of {len(members)}: {member}", flush=True)
            _train_member(member, directory, workers)
        if not workers.is_chief:
            workers.from_chief(None)
            return {}
        report = _report_on_finished(config)
    results = {
        **report.to_dict(),
        "members": _members(config, report),
        "config": config.to_dict(),
        "versions": environment.versions(),
        "seconds": round(time.monotonic() - started, 1),
    }
    table = report.table()
    if config.run.tensorboard:
        _write_text(directory.tensorboard, table)
    directory.finish(results, report.csv())
    workers.from_chief(None)
    print(f"\n{table}\nresults: {directory.results}\ntable: {directory.table}", flush=True)
    return results


def evaluate(config: ExperimentConfig, evaluated: ExperimentConfig) -> GroupReport:
    """Embeds and scores the test images with every model of a finished group.

    Args:
        config: the group's, with its folder.
        evaluated: the same, or with another data set or PCA.
    """
    scorer = scorer_of(config, evaluated)

    def embed(member: Member) -> Embedded:
        forget_models()
        return FinishedRun(RunDirectory.of(member.config)).embed(scorer)

    return _report(
        config,
        evaluated,
        scorer,
        embed,
        lambda member, embedded: scorer.score(embedded, scorer.fit(embedded)).result.means(),
    )


def _train_member(member: Member, group: RunDirectory, workers: Workers) -> None:
    directory = RunDirectory.of(member.config)
    if workers.from_chief(workers.is_chief and directory.holds_finished(member.config)):
        print(f"{directory.path}: finished before", flush=True)
        return
    forget_models()
    single.train(member.config, group)


def _report_on_finished(config: ExperimentConfig) -> GroupReport:
    """The report from what the runs of the group have written."""
    return _report(
        config,
        config,
        Scorer.of_test(config, load_task(config.members[0].config.data)),
        lambda member: read_embeddings(RunDirectory.of(member.config)),
        lambda member, _: RunDirectory.of(member.config).read_results()["test"],
    )


def _report(
    config: ExperimentConfig,
    evaluated: ExperimentConfig,
    scorer: Scorer,
    embed: Callable[[Member], Embedded],
    score: Callable[[Member, Embedded], Means],
) -> GroupReport:
    """Repeat by repeat, so that the embeddings of one repeat are in memory at a time."""
    members: list[MemberScores] = []
    repeats: dict[str, list[tuple[int, Means]]] = {}
    for _, group in itertools.groupby(config.members, key=lambda member: member.repeat):
        folds: list[Embedded] = []
        scores: list[Means] = []
        for member in group:
            folds.append(embed(member))
            scores.append(score(member, folds[-1]))
            members.append(MemberScores(member.fold, member.repeat, member.config.run.seed, scores[-1]))
        found = {"separate": (_dimensions(evaluated, folds[0]), mean(scores))}
        if len(folds) > 1:
            for kind, normalization in _CONCATENATED.items():
                joined = concatenate(folds, normalization)
                result = scorer.score(joined, scorer.fit(joined)).result
                found[kind] = (_dimensions(evaluated, joined), mean([result.means()]))
        for kind, values in found.items():
            repeats.setdefault(kind, []).append(values)
    aggregates = {
        kind: Aggregate(values[0][0], tuple(means for _, means in values)) for kind, values in repeats.items()
    }
    return GroupReport(members, aggregates, **published(config, evaluated, aggregates))


def _dimensions(config: ExperimentConfig, embedded: Embedded) -> int:
    return config.evaluation.pca_dim or int(embedded.test.shape[1])


def _members(config: ExperimentConfig, report: GroupReport) -> list[dict[str, Any]]:
    """The runs with their scores, for `results.json`; their folders relative to the group's."""
    found = []
    for member, scores in zip(config.members, report.members):
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


def _write_text(folder: Path, table: str) -> None:
    """The table as a text in TensorBoard, in place of an earlier one."""
    shutil.rmtree(folder, ignore_errors=True)
    indented = "\n".join(f"    {line}" for line in table.splitlines())
    with tf.summary.create_file_writer(str(folder / "report")).as_default():
        tf.summary.text("results", indented, step=0, description="Test results of all runs, in percent.")
