"""Trains the methods of the paper's tables on the emoji with equal steps.

    python -m studies.methods.run [--only TEXT] [--jobs N]

Every run that is not finished yet is trained, so the command can be stopped and repeated. A run is the
documented command `python train.py --flagfile=configs/emoji/METHOD.cfg` with the number of steps fixed. The
measurements are collected in results.json, from which `studies.methods.report` makes the tables of
docs/results.md.

Budget: 1.5 hours on 2 cores, with `--jobs 2 --threads 1`.
"""

from __future__ import annotations

from pathlib import Path

from configs.generate import METHODS
from studies import training_runs
from studies.training_runs import Run

RESULTS = Path(__file__).with_name("results.json")
SEEDS = range(3)
# 1,200 steps for every method, a warm-up included; the best of the 24 validations is tested.
EQUAL_STEPS = {"steps_per_epoch": 50, "max_epochs": 24, "patience": 0}


def all_runs() -> list[Run]:
    """Every method with every seed, seed by seed."""
    return [
        Run("methods", method, f"emoji/{method}", EQUAL_STEPS, seed) for seed in SEEDS for method in METHODS
    ]


if __name__ == "__main__":
    training_runs.main(__doc__, all_runs, RESULTS, budget_minutes=300)
