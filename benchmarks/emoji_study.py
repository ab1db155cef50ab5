"""When does CCP pay? A study on the emoji set; its tables and curves are those of `docs/results.md`.

    python -m benchmarks.emoji_study run [--phase screen|compare] [--only TEXT] [--jobs N]
    python -m benchmarks.emoji_study report

`run` trains every run of a phase that is not finished yet, so it can be stopped and repeated. Each run is
the documented command `python train.py --flagfile=configs/emoji.cfg` with some flags changed. The
measurements of finished runs are collected in `benchmarks/emoji_study.json`; `report` makes the tables and
the picture from that file alone.

Budget: 3 hours on 2 cores, with `--jobs 2 --threads 1`.
"""

from __future__ import annotations

import argparse
import csv
import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks import emoji_study_report

PROJECT = Path(__file__).resolve().parents[1]
RUNS = PROJECT / "runs" / "emoji_study"
MEASUREMENTS = PROJECT / "benchmarks" / "emoji_study.json"
COLUMNS = ("precision_at_1", "r_precision", "map_at_r")

# What all runs of a phase share. The test classes are measured along the way and decide nothing.
SCREEN = {"max_epochs": 24, "patience": 0, "track_test": 4}
COMPARE = {"max_epochs": 80, "patience": 12, "track_test": 4}

BASE = {"loss": "contrastive"}
PAPER = {"ccp_reset_rule": "patience", "ccp_patience": 3}
EVERY_EPOCH = {"ccp_reset_rule": "fixed", "ccp_min_iterations": 1}


@dataclass(frozen=True)
class Run:
    """One training run: a name, the configuration it starts from and the flags that differ."""

    name: str
    config: str
    flags: dict[str, Any]
    seed: int

    @property
    def directory(self) -> Path:
        return RUNS / self.name / f"seed_{self.seed}"

    def command(self) -> list[str]:
        flags = {**self.flags, "seed": self.seed, "run_dir": self.directory, "tensorboard": "false"}
        return [
            sys.executable,
            "train.py",
            f"--flagfile=configs/{self.config}.cfg",
            *(f"--{k}={v}" for k, v in flags.items()),
        ]


def screen() -> Iterator[Run]:
    """One factor at a time, one seed, equal steps."""
    ccp = {**SCREEN, "pool_size": 5, "proxies_per_class": 4}
    factors: dict[str, tuple[str, dict[str, Any]]] = {
        "base loss": ("emoji_contrastive", SCREEN),
        "reset: patience 3 (paper)": ("emoji", {**ccp, **PAPER}),
        "reset: every epoch": ("emoji", {**ccp, **EVERY_EPOCH}),
        "K = 2": ("emoji", {**ccp, **EVERY_EPOCH, "proxies_per_class": 2}),
        "reset: every epoch of 25 steps": (
            "emoji",
            {**ccp, **EVERY_EPOCH, "steps_per_epoch": 25, "max_epochs": 48, "track_test": 8},
        ),
        "proxy learning rate x1000": (
            "emoji",
            {**ccp, **EVERY_EPOCH, "proxy_learning_rate_multiplier": 1000},
        ),
        "patience 3, proxy learning rate x1000": (
            "emoji",
            {**ccp, **PAPER, "proxy_learning_rate_multiplier": 1000},
        ),
        "lambda = 2e-2": ("emoji", {**ccp, **EVERY_EPOCH, "ccp_lambda": 2e-2}),
        "pair weight 1": ("emoji", {**ccp, **EVERY_EPOCH, "pair_weight": 1}),
        "reset: staleness 0.3": (
            "emoji",
            {**ccp, "ccp_reset_rule": "staleness", "ccp_staleness_threshold": 0.3},
        ),
        "reset: patience 1": ("emoji", {**ccp, **PAPER, "ccp_patience": 1}),
        "patience 3, proxy learning rate x100": (
            "emoji",
            {**ccp, **PAPER, "proxy_learning_rate_multiplier": 100},
        ),
        "lambda = 0": ("emoji", {**ccp, **EVERY_EPOCH, "ccp_lambda": 0}),
        "K = 1": ("emoji", {**ccp, **EVERY_EPOCH, "proxies_per_class": 1}),
        "margins 0.2858, 0.5130, base loss": (
            "emoji_contrastive",
            {**SCREEN, "positive_margin": 0.2858, "negative_margin": 0.5130},
        ),
        "margins 0.2858, 0.5130": (
            "emoji",
            {**ccp, **EVERY_EPOCH, "positive_margin": 0.2858, "negative_margin": 0.5130},
        ),
        "b = 1 (the draws as they are)": ("emoji", {**ccp, **EVERY_EPOCH, "pool_size": 1}),
    }
    for name, (config, flags) in factors.items():
        yield Run(f"screen/{name}", config, flags, seed=0)


def compare() -> Iterator[Run]:
    """The two committed configurations, and CCP by the paper's rule, to convergence, three seeds."""
    for seed in range(3):
        yield Run("compare/emoji_contrastive", "emoji_contrastive", COMPARE, seed)
        yield Run("compare/emoji", "emoji", COMPARE, seed)
    for seed in range(3):
        yield Run("compare/emoji, patience 3", "emoji", {**COMPARE, **PAPER}, seed)


PHASES = {"screen": screen, "compare": compare}


def run_phase(runs: list[Run], jobs: int, threads: int, deadline: float) -> None:
    """Trains the unfinished runs, `jobs` at a time, starting none after the deadline."""

    def train(run: Run) -> None:
        if (run.directory / "results.json").exists() or time.monotonic() > deadline:
            return
        run.directory.parent.mkdir(parents=True, exist_ok=True)
        environment = {
            **os.environ,
            "TF_NUM_INTRAOP_THREADS": str(threads),
            "TF_NUM_INTEROP_THREADS": str(threads),
            "OMP_NUM_THREADS": str(threads),
        }
        started = time.monotonic()
        with (run.directory.parent / f"seed_{run.seed}.log").open("w") as log:
            status = subprocess.run(run.command(), cwd=PROJECT, env=environment, stdout=log, stderr=log)
        outcome = (
            "done" if status.returncode == 0 else f"failed with status {status.returncode}, see {log.name}"
        )
        print(f"{run.name} seed {run.seed}: {outcome} in {time.monotonic() - started:.0f} s", flush=True)

    with ThreadPoolExecutor(jobs) as pool:
        list(pool.map(train, runs))


def collect(runs: list[Run]) -> None:
    """Adds the measurements of finished runs to the file of measurements."""
    known: dict[str, Any] = json.loads(MEASUREMENTS.read_text()) if MEASUREMENTS.exists() else {}
    for run in runs:
        results = run.directory / "results.json"
        if results.exists():
            known[f"{run.name}/seed_{run.seed}"] = measurement(run, json.loads(results.read_text()))
    MEASUREMENTS.write_text(json.dumps(known, indent=1, sort_keys=True) + "\n")


def measurement(run: Run, results: dict[str, Any]) -> dict[str, Any]:
    """What is kept of a run: its final scores and its curves over steps, in percent."""
    with (run.directory / "metrics.csv").open() as file:
        rows = list(csv.DictReader(file))
    return {
        "config": run.config,
        "flags": {name: str(value) for name, value in run.flags.items()},
        "test": {name: 100 * results["test"][name] for name in COLUMNS},
        "best_epoch": results.get("best_epoch"),
        "steps_per_epoch": results["config"]["steps_per_epoch"],
        "steps": [int(row["step"]) for row in rows],
        "instance": [int(float(row.get("problem_instance") or 0)) for row in rows],
        "validation_map_at_r": [round(100 * float(row["val_map_at_r"]), 3) for row in rows],
        "test_map_at_r": [
            round(100 * float(v), 3) if (v := row.get("test_map_at_r")) else None for row in rows
        ],
    }


def main() -> None:
    """Runs the study, or reports it."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("action", choices=("run", "report"))
    parser.add_argument("--phase", choices=tuple(PHASES), action="append", help="default: all")
    parser.add_argument("--only", default="", help="only runs whose name contains this text")
    parser.add_argument("--jobs", type=int, default=1, help="runs at the same time (default: 1)")
    parser.add_argument("--threads", type=int, default=2, help="threads of a run (default: 2)")
    parser.add_argument(
        "--budget_minutes", type=float, default=180, help="start no run after that (default: 180)"
    )
    arguments = parser.parse_args()
    if arguments.action == "run":
        runs = [run for phase in arguments.phase or PHASES for run in PHASES[phase]()]
        runs = [run for run in runs if arguments.only in run.name]
        deadline = time.monotonic() + 60 * arguments.budget_minutes
        run_phase(runs, arguments.jobs, arguments.threads, deadline)
        collect(runs)
    emoji_study_report.write(json.loads(MEASUREMENTS.read_text()), PROJECT / "docs")


if __name__ == "__main__":
    main()
