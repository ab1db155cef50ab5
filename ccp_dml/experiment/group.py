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
from ccp_dml.evaluation import report as reports
from ccp_dml.evaluation.embedding import Embedded, concatenate
from ccp_dml.evaluation.report import Aggregate, GroupReport, Means, MemberScores, mean
from ccp_dml.experiment import single
from ccp_dml.experiment.finished import FinishedRun, forget_models, scorer_of, scorer_of_task
from ccp_dml.experiment.scoring import Scorer, read_embeddings
from ccp_dml.experiment.single import resumable
from ccp_dml.experiment.task import Task, load_task
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
    directory.check(config, writes=is_chief(config.devices, os.environ))
    runs, workers = members(config), make_workers(config.devices)
    # Unusable data is found before a folder is made or replaced.
    _load_task(runs[0])
    with resumable(directory, workers):
        continued = workers.from_chief(workers.is_chief and directory.begin(config))
    print(f"{directory.path}: {'continuing' if continued else 'new group'}; {len(runs)} runs", flush=True)
    with resumable(directory, workers):
        for number, member in enumerate(runs, start=1):
            print(f"\nrun {number} of {len(runs)}: {member}", flush=True)
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
    if config.monitoring.tensorboard:
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
        scorer_of_task(config, _load_task(members(config)[0])),
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
    scored: list[MemberScores] = []
    repeats: dict[str, list[tuple[int, Means]]] = {}
    for _, group in itertools.groupby(members(config), key=lambda member: member.repeat):
        folds: list[Embedded] = []
        scores: list[Means] = []
        for member in group:
            folds.append(embed(member))
            scores.append(score(member, folds[-1]))
            scored.append(MemberScores(member.fold, member.repeat, member.config.run.seed, scores[-1]))
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
    return GroupReport(scored, aggregates, **_published(config, evaluated, aggregates))


def _dimensions(config: ExperimentConfig, embedded: Embedded) -> int:
    return config.evaluation.pca_dim or int(embedded.test.shape[1])


def _members(config: ExperimentConfig, report: GroupReport) -> list[dict[str, Any]]:
    """The runs with their scores, for `results.json`; their folders relative to the group's."""
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


def _write_text(folder: Path, table: str) -> None:
    """The table as a text in TensorBoard, in place of an earlier one."""
    shutil.rmtree(folder, ignore_errors=True)
    indented = "\n".join(f"    {line}" for line in table.splitlines())
    with tf.summary.create_file_writer(str(folder / "report")).as_default():
        tf.summary.text("results", indented, step=0, description="Test results of all runs, in percent.")


def _load_task(member: Member) -> Task:
    return load_task(member.config.source, member.config.split, member.config.batches)


def _published(
    config: ExperimentConfig, evaluated: ExperimentConfig, aggregates: Mapping[str, Aggregate]
) -> dict[str, Any]:
    """The paper's values for separate and concatenated results, where the protocol is that of the paper.

    Args:
        config: the group's.
        evaluated: the same, or with another data set or PCA.
        aggregates: the results by kind.

    Returns:
        `paper` and, unless that is empty, `paper_method` and `paper_note` of a `GroupReport`.
    """
    of_paper = config.split.fold == ALL_FOLDS and config.split.num_folds == reports.NUM_FOLDS
    same_test = evaluated.source.dataset == config.source.dataset and evaluated.evaluation.pca_dim is None
    found = {}
    if of_paper and same_test:
        for kind in ("separate", "concatenated"):
            row = reports.published(config.source.dataset, config.loss.loss, aggregates[kind].dimensions)
            if row is not None:
                found[kind] = row
    if not found:
        return {"paper": {}}
    (method,) = {method for method, _ in found.values()}
    values = {kind: means for kind, (_, means) in found.items()}
    return {"paper": values, "paper_method": method, "paper_note": "; ".join(_differences(config))}


def _differences(config: ExperimentConfig) -> list[str]:
    """Another backbone, and flags that leave out or change images or labels."""
    source, backbone = config.source, config.model.backbone
    flags = {
        "--check_counts=false": not source.check_counts,
        "--skip_bad_images": source.skip_bad_images,
        "--crop_to_box": source.crop_to_box,
        f"--label_noise={config.split.label_noise:g}": config.split.label_noise > 0,
        f"--prepared_shorter_side={source.prepared_shorter_side}": bool(source.prepared_shorter_side),
    }
    given = [flag for flag, is_given in flags.items() if is_given]
    other_backbone = f"its backbone is {reports.BACKBONE}, here {backbone}"
    other_images = f"other images or labels here: {' '.join(given)}"
    return [*([other_backbone] if backbone != reports.BACKBONE else []), *([other_images] if given else [])]
