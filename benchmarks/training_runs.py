"""Training runs that a study is made of: train the missing ones by the documented command, keep figures."""

from __future__ import annotations

import argparse
import csv
import json
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

PROJECT = Path(__file__).resolve().parents[1]
DOCS = PROJECT / "docs"
COLUMNS = {"precision_at_1": "P@1", "r_precision": "P@R", "map_at_r": "MAP@R"}

Measurements = Mapping[str, Mapping[str, Any]]


@dataclass(frozen=True)
class Run:
    """One training run: a name in its study, the configurations it starts from and the flags that differ."""

    study: str
    name: str
    configs: tuple[str, ...]
    flags: dict[str, Any]
    seed: int

    @property
    def key(self) -> str:
        return f"{self.name}/seed_{self.seed}"

    @property
    def directory(self) -> Path:
        return PROJECT / "runs" / self.study / self.key

    def command(self) -> list[str]:
        flags = {**self.flags, "seed": self.seed, "run_dir": self.directory, "tensorboard": "false"}
        return [
            sys.executable,
            "train.py",
            *(f"--flagfile=configs/{config}.cfg" for config in self.configs),
            *(f"--{name}={value}" for name, value in flags.items()),
        ]


def add_flags(parser: argparse.ArgumentParser, budget_minutes: float) -> None:
    """The flags that say which runs are trained and how."""
    parser.add_argument("--only", default="", help="only runs whose name contains this text")
    parser.add_argument("--jobs", type=int, default=1, help="runs at the same time (default: 1)")
    parser.add_argument("--threads", type=int, default=2, help="threads of a run (default: 2)")
    parser.add_argument(
        "--budget_minutes",
        type=float,
        default=budget_minutes,
        help=f"start no run after that (default: {budget_minutes:g})",
    )


def train(runs: Iterable[Run], arguments: argparse.Namespace) -> None:
    """Trains the runs that are not finished yet, as the flags of `add_flags` say."""
    deadline = time.monotonic() + 60 * arguments.budget_minutes

    def train_one(run: Run) -> None:
        if (run.directory / "results.json").exists() or time.monotonic() > deadline:
            return
        run.directory.parent.mkdir(parents=True, exist_ok=True)
        threads = str(arguments.threads)
        names = ("TF_NUM_INTRAOP_THREADS", "TF_NUM_INTEROP_THREADS", "OMP_NUM_THREADS")
        environment = {**os.environ, **dict.fromkeys(names, threads)}
        started = time.monotonic()
        with (run.directory.parent / f"seed_{run.seed}.log").open("w") as log:
            done = subprocess.run(run.command(), cwd=PROJECT, env=environment, stdout=log, stderr=log)
        outcome = "done" if done.returncode == 0 else f"failed with status {done.returncode}, see {log.name}"
        print(f"{run.key}: {outcome} in {time.monotonic() - started:.0f} s", flush=True)

    with ThreadPoolExecutor(arguments.jobs) as pool:
        list(pool.map(train_one, (run for run in runs if arguments.only in run.name)))


def collect(runs: Iterable[Run], file: Path) -> Measurements:
    """Adds the measurements of finished runs to a file of measurements; returns all that it holds."""
    known: dict[str, Any] = json.loads(file.read_text()) if file.exists() else {}
    for run in runs:
        results = run.directory / "results.json"
        if results.exists():
            known[run.key] = measurement(run, json.loads(results.read_text()))
    file.write_text(json.dumps(known, indent=1, sort_keys=True) + "\n")
    return known


def measurement(run: Run, results: dict[str, Any]) -> dict[str, Any]:
    """What is kept of a run: its final scores and its curves over steps, in percent."""
    with (run.directory / "metrics.csv").open() as file:
        rows = list(csv.DictReader(file))
    return {
        "config": " ".join(run.configs),
        "flags": {name: str(value) for name, value in run.flags.items()},
        "frozen": {name: 100 * results["frozen_features"][name] for name in COLUMNS},
        "test": {name: 100 * results["test"][name] for name in COLUMNS},
        "best_epoch": results.get("best_epoch"),
        "resets_share": results["time_shares"]["resets"],
        "steps_per_epoch": results["config"]["steps_per_epoch"],
        "steps": [int(row["step"]) for row in rows],
        "instance": [int(float(row.get("problem_instance") or 0)) for row in rows],
        "validation_map_at_r": [round(100 * float(row["val_map_at_r"]), 3) for row in rows],
        "test_map_at_r": [
            round(100 * float(v), 3) if (v := row.get("test_map_at_r")) else None for row in rows
        ],
    }


def of_name(measurements: Measurements, name: str) -> list[Mapping[str, Any]]:
    """Measurements of all seeds of the runs of a name."""
    return [value for key, value in sorted(measurements.items()) if key.rsplit("/", 1)[0] == name]


def spread(values: Sequence[float], digits: int = 1) -> str:
    """Mean ± standard deviation over seeds; the value alone if there is one."""
    mean = f"{statistics.mean(values):.{digits}f}"
    return mean if len(values) == 1 else f"{mean} ± {statistics.stdev(values):.{digits}f}"


def write_parts(document: Path, command: str, parts: Mapping[str, Iterable[str]]) -> None:
    """Replaces the generated parts of a document, by name; comments in it mark where each begins and ends."""
    text = document.read_text()
    for name, lines in parts.items():
        begin, end = f"<!-- {name}: made by {command} -->", f"<!-- end of {name} -->"
        if begin not in text or end not in text:
            raise ValueError(f"{document}: expected the lines {begin!r} and {end!r}; found no such part")
        head, rest = text.split(begin)
        _, tail = rest.split(end)
        text = "\n".join([head + begin, "", *lines, "", end + tail])
    document.write_text(text)
