"""The methods of the paper's tables on the emoji set, with equal steps: the tables of `docs/results.md`.

    python -m benchmarks.methods run [--only TEXT] [--jobs N]
    python -m benchmarks.methods report

`run` trains every run that is not finished yet, so it can be stopped and repeated. Each run is the documented
command `python train.py --flagfile=configs/emoji/METHOD.cfg` with the number of steps fixed. The measurements
are kept in `benchmarks/methods.json`; `report` makes the tables from that file.

Budget: 1.5 hours on 2 cores, with `--jobs 2 --threads 1`.
"""

from __future__ import annotations

import argparse
import json

from benchmarks import methods_report, training_runs
from benchmarks.training_runs import DOCS, PROJECT, Run
from configs.generate import METHODS

MEASUREMENTS = PROJECT / "benchmarks" / "methods.json"
SEEDS = range(3)
# 1,200 steps for every method, the warm-up of some included; the best of the 24 validations is tested.
EQUAL_STEPS = {"steps_per_epoch": 50, "max_epochs": 24, "patience": 0}


def all_runs() -> list[Run]:
    """Every method with every seed, seed by seed."""
    return [
        Run("methods", method, (f"emoji/{method}",), EQUAL_STEPS, seed)
        for seed in SEEDS
        for method in METHODS
    ]


def main() -> None:
    """Runs the study, or reports it."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("action", choices=("run", "report"))
    training_runs.add_flags(parser, budget_minutes=300)
    arguments = parser.parse_args()
    if arguments.action == "run":
        training_runs.train(all_runs(), arguments)
        training_runs.collect(all_runs(), MEASUREMENTS)
    methods_report.write(json.loads(MEASUREMENTS.read_text()), DOCS)


if __name__ == "__main__":
    main()
