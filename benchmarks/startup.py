"""What it takes until a run trains: help, import, data, model, tracing, first step.

    python -m benchmarks.startup              # half a minute

Each row is a process of its own, measured several times. The run is that of configs/emoji.cfg, prepared
before, up to the end of its first chunk of steps; the evaluation of frozen features, which a run begins with,
is left out. The aims are 2 s for --help and 20 s for the first step.
"""

from __future__ import annotations

import argparse
import itertools
import json
import os
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from typing import Any

from benchmarks.measuring import Headline, write

HELP = [sys.executable, "train.py", "--help"]
PARTS = ("import", "data, model and loss", "optimizer and tracing", "first chunk of 10 steps")


def main() -> None:
    options = parse_options()
    if options.measure:
        print(json.dumps(measure()))
        return
    helps = [of_process(HELP) for _ in range(options.repeats)]
    command = [sys.executable, "-m", "benchmarks.startup", "--measure"]
    runs = [json.loads(subprocess.check_output(command, text=True)) for _ in range(options.repeats)]
    columns = {"train.py --help": helps} | {part: [run[part] for run in runs] for part in PARTS}
    columns["import to first chunk"] = [
        [sum(run[part][i] for part in PARTS) for i in range(2)] for run in runs
    ]
    rows = {name: [statistics.median(column) for column in zip(*found)] for name, found in columns.items()}
    for line in table(rows):
        print(line)
    if options.write:
        write("startup", {"rows": rows}, table(rows), headlines(rows))


def parse_options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter, allow_abbrev=False
    )
    add = parser.add_argument
    add("--repeats", type=int, default=3, help="processes of each row (3)")
    add("--measure", action="store_true", help="measure one run in this process")
    add(
        "--write", action=argparse.BooleanOptionalAction, default=True, help="write startup.json and the docs"
    )
    return parser.parse_args()


def of_process(command: list[str]) -> tuple[float, float]:
    """Elapsed and processor seconds of a command."""
    started, before = time.perf_counter(), resource.getrusage(resource.RUSAGE_CHILDREN)
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    used = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return time.perf_counter() - started, used


def measure() -> dict[str, tuple[float, float]]:
    """Elapsed and processor seconds of each part of one start."""
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    clock = [(time.perf_counter(), time.process_time())]

    def tick() -> None:
        clock.append((time.perf_counter(), time.process_time()))

    from ccp_dml.config import command_line
    from ccp_dml.experiment.experiment import Experiment
    from ccp_dml.run_directory import RunDirectory

    tick()
    with tempfile.TemporaryDirectory() as folder:
        flags = ["--flagfile=configs/emoji.cfg", f"--run_dir={folder}/run", "--steps_per_epoch=10"]
        config = command_line.parse(flags)
        experiment = Experiment(config)
        tick()
        trainer = experiment.make_trainer(RunDirectory.of(config), [])
        trainer.trace()
        tick()
        # Validation and checkpoint come after the first chunk.
        chunk = trainer._phases.runner()(iter(trainer._batches(0)), 10)
        chunk.embeddings.numpy()
        tick()
    pairs = itertools.pairwise(clock)
    return {part: (after[0] - before[0], after[1] - before[1]) for part, (before, after) in zip(PARTS, pairs)}


def table(rows: dict[str, Any]) -> Iterator[str]:
    yield "| | s | s of the processor |"
    yield "|---|---|---|"
    for name, (elapsed, processor) in rows.items():
        yield f"| {name} | {elapsed:.1f} | {processor:.1f} |"


def headlines(rows: dict[str, Any]) -> Iterator[Headline]:
    for name, most in (("train.py --help", 2.0), ("import to first chunk", 20.0)):
        yield Headline(name, rows[name][0], " s", most)


if __name__ == "__main__":
    main()
