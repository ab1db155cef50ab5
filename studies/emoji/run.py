"""Trains the runs of the study on the emoji: when does CCP pay?

    python -m studies.emoji.run [--only screen/|compare/|memory/] [--jobs N]

Every run that is not finished yet is trained, so the command can be stopped and repeated. A run is the
documented command `python train.py --flagfile=configs/emoji.cfg` with some flags changed. The measurements
of finished runs are collected in results.json, from which `studies.emoji.report` makes the tables and the
picture of docs/results.md.

Budget: 4 hours on 2 cores, with `--jobs 2 --threads 1`.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

from studies import training_runs

RESULTS = Path(__file__).with_name("results.json")
Run = partial(training_runs.Run, "emoji_study")

# The flags of each phase. The test classes are measured along the way and decide nothing.
SCREEN = {"max_epochs": 24, "patience": 0, "track_test": 4}
COMPARE = {"max_epochs": 80, "patience": 12, "track_test": 4}
MEMORY = {"patience": 0, "track_test": 5}

PAPER = {"ccp_reset_rule": "patience", "ccp_patience": 3}
EVERY_EPOCH = {"ccp_reset_rule": "fixed", "ccp_min_iterations": 1}
MARGINS = {"positive_margin": 0.2858, "negative_margin": 0.5130}
MULTIPLIER = "proxy_learning_rate_multiplier"


def screen() -> Iterator[training_runs.Run]:
    """One factor at a time, one seed, equal steps."""
    base: dict[str, dict[str, Any]] = {"base loss": {}, "margins 0.2858, 0.5130, base loss": MARGINS}
    ccp: dict[str, dict[str, Any]] = {
        "reset: patience 3 (paper)": PAPER,
        "reset: every epoch": EVERY_EPOCH,
        "K = 2": {**EVERY_EPOCH, "proxies_per_class": 2},
        "reset: every epoch of 25 steps": {
            **EVERY_EPOCH,
            **{"steps_per_epoch": 25, "max_epochs": 48, "track_test": 8},
        },
        "proxy learning rate x1000": {**EVERY_EPOCH, MULTIPLIER: 1000},
        "patience 3, proxy learning rate x1000": {**PAPER, MULTIPLIER: 1000},
        "lambda = 2e-2": {**EVERY_EPOCH, "ccp_lambda": 2e-2},
        "pair weight 1": {**EVERY_EPOCH, "pair_weight": 1},
        "reset: staleness 0.3": {"ccp_reset_rule": "staleness", "ccp_staleness_threshold": 0.3},
        "reset: patience 1": {**PAPER, "ccp_patience": 1},
        "patience 3, proxy learning rate x100": {**PAPER, MULTIPLIER: 100},
        "lambda = 0": {**EVERY_EPOCH, "ccp_lambda": 0},
        "K = 1": {**EVERY_EPOCH, "proxies_per_class": 1},
        "margins 0.2858, 0.5130": {**EVERY_EPOCH, **MARGINS},
        "b = 1 (the draws as they are)": {**EVERY_EPOCH, "pool_size": 1},
    }
    for name, flags in base.items():
        yield Run(f"screen/{name}", "emoji/c2", {**SCREEN, **flags}, seed=0)
    for name, flags in ccp.items():
        yield Run(
            f"screen/{name}", "emoji", {**SCREEN, "pool_size": 5, "proxies_per_class": 4, **flags}, seed=0
        )


def compare() -> Iterator[training_runs.Run]:
    """The contrastive loss, CCP, and CCP by the paper's rule, to convergence, three seeds."""
    for seed in range(3):
        yield Run("compare/emoji_contrastive", "emoji/c2", COMPARE, seed)
        yield Run("compare/emoji", "emoji", COMPARE, seed)
    for seed in range(3):
        yield Run("compare/emoji, patience 3", "emoji", {**COMPARE, **PAPER}, seed)


def memory() -> Iterator[training_runs.Run]:
    """CCP with pools out of a memory of training embeddings, equal steps, three seeds."""
    for seed in range(3):
        for steps in (0, 50, 250):
            yield Run(f"memory/{steps}", "emoji", {**MEMORY, "pool_memory_steps": steps}, seed)


def all_runs() -> Iterator[training_runs.Run]:
    """The runs of all phases."""
    for phase in (screen, compare, memory):
        yield from phase()


if __name__ == "__main__":
    training_runs.main(__doc__, all_runs, RESULTS, budget_minutes=240)
