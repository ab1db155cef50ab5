"""Training runs of a study: trains the missing ones by the documented command and keeps their figures."""

from __future__ import annotations

import argparse
import csv
import json
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
DOCS = ROOT / "docs"
COLUMNS = {"precision_at_1": "P@1", "r_precision": "P@R", "map_at_r": "MAP@R"}

Measurements = Mapping[str, Mapping[str, Any]]


@dataclass(frozen=True)
class Run:
    """One training run.

    Attributes:
        study: name of the study.
        name: name of the run in the study; runs with several seeds share it.
        config: path of the flagfile in `configs`, without its ending.
        flags: further flags.
        seed: of the run.
        root: folder of the runs of all studies.
    """

    study: str
    name: str
    config: str
    flags: Mapping[str, Any]
    seed: int
    root: Path = ROOT / "runs"

    @property
    def key(self) -> str:
        """The key of its measurements."""
        return f"{self.name}/seed_{self.seed}"

    @property
    def directory(self) -> Path:
        """The run directory."""
        return self.root / self.study / self.key

    def command(self) -> list[str]:
        """The command line."""
        flags = {**self.flags, "seed": self.seed, "run_dir": self.directory, "tensorboard": "false"}
        return [
            sys.executable,
            "train.py",
            f"--flagfile=configs/{self.config}.cfg",
            *(f"--{name}={value}" for name, value in flags.items()),
        ]


def main(doc: str | None, runs: Callable[[], Iterable[Run]], results: Path, budget_minutes: float) -> None:
    """The command line of a study: trains the runs that are not finished and collects their measurements.

    Args:
        doc: docstring of the module, shown by `--help`.
        runs: gives the runs of the study.
        results: file of the measurements.
        budget_minutes: default of `--budget_minutes`.
    """
    parser = argparse.ArgumentParser(description=doc, formatter_class=argparse.RawDescriptionHelpFormatter)
    add = parser.add_argument
    add("--only", default="", help="only runs whose name contains this text")
    add("--jobs", type=int, default=1, help="runs at the same time (default: 1)")
    add("--threads", type=int, default=2, help="threads of a run (default: 2)")
    add("--budget_minutes", type=float, default=budget_minutes, help="start no run after that (%(default)g)")
    arguments = parser.parse_args()
    chosen = [run for run in runs() if arguments.only in run.name]
    train(chosen, arguments.jobs, arguments.threads, arguments.budget_minutes)
    collect(chosen, results)


def train(runs: Iterable[Run], jobs: int, threads: int, budget_minutes: float) -> None:
    """Trains the runs that are not finished yet, so many at a time."""
    deadline = time.monotonic() + 60 * budget_minutes
    names = ("TF_NUM_INTRAOP_THREADS", "TF_NUM_INTEROP_THREADS", "OMP_NUM_THREADS")
    environment = {**os.environ, **dict.fromkeys(names, str(threads))}

    def train_one(run: Run) -> None:
        if (run.directory / "results.json").exists() or time.monotonic() > deadline:
            return
        run.directory.parent.mkdir(parents=True, exist_ok=True)
        started = time.monotonic()
        with (run.directory.parent / f"seed_{run.seed}.log").open("w") as log:
            done = subprocess.run(run.command(), cwd=ROOT, env=environment, stdout=log, stderr=log)
        outcome = "done" if done.returncode == 0 else f"failed with status {done.returncode}, see {log.name}"
        print(f"{run.key}: {outcome} in {time.monotonic() - started:.0f} s", flush=True)

    with ThreadPoolExecutor(jobs) as pool:
        list(pool.map(train_one, runs))


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
    """The measurements of a finished run: its final scores and its curves over steps, in percent."""
    with (run.directory / "metrics.csv").open() as file:
        rows = list(csv.DictReader(file))
    return {
        "config": run.config,
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
    """Measurements of all seeds of a name."""
    return [value for key, value in sorted(measurements.items()) if key.rsplit("/", 1)[0] == name]


def spread(values: Sequence[float], digits: int = 1) -> str:
    """Mean ± standard deviation over seeds; the value alone if there is one."""
    mean = f"{statistics.mean(values):.{digits}f}"
    return mean if len(values) == 1 else f"{mean} ± {statistics.stdev(values):.{digits}f}"
