"""Time before a run trains: help, import, data, model, tracing, first steps.

    python -m benchmarks.startup.run              # half a minute
    python -m benchmarks.startup.run --quick      # one process of each row

Each row is the median of several processes. The run is that of configs/emoji.cfg with prepared data, up to
the end of its first 10 steps, without the evaluation of frozen features with which a run begins. The aims are
2 s for --help and 20 s for the first steps.
"""

from __future__ import annotations

import itertools
import resource
import statistics
import subprocess
import sys
import tempfile
import time

from benchmarks.common import results
from benchmarks.common.measuring import Seconds
from benchmarks.common.processes import in_process

HELP = [sys.executable, "train.py", "--help"]
PHASES = ("import", "data, model and loss", "optimizer and tracing", "first chunk of 10 steps")
REPEATS = 3


def main() -> None:
    options = results.make_parser(__doc__).parse_args()
    repeats = 1 if options.quick else REPEATS
    columns = {"train.py --help": [time_of_command(HELP) for _ in range(repeats)]}
    runs = [in_process(measure) for _ in range(repeats)]
    columns |= {phase: [run[phase] for run in runs] for phase in PHASES}
    columns["import to first chunk"] = [
        (sum(run[phase][0] for phase in PHASES), sum(run[phase][1] for phase in PHASES)) for run in runs
    ]
    rows = {name: [statistics.median(column) for column in zip(*found)] for name, found in columns.items()}
    results.publish("startup", {"rows": rows}, write=not options.quick)


def time_of_command(command: list[str]) -> Seconds:
    """Elapsed and processor seconds of a command."""
    started, before = time.perf_counter(), resource.getrusage(resource.RUSAGE_CHILDREN)
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    used = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return time.perf_counter() - started, used


def measure() -> dict[str, Seconds]:
    """Elapsed and processor seconds of each phase of a start; to be called in a new process."""
    clock = [(time.perf_counter(), time.process_time())]

    def tick() -> None:
        clock.append((time.perf_counter(), time.process_time()))

    from ccp_dml.config import command_line
    from ccp_dml.experiment.build import build, build_trainer
    from ccp_dml.run_directory import RunDirectory

    tick()
    with tempfile.TemporaryDirectory() as folder:
        flags = ["--flagfile=configs/emoji.cfg", f"--run_dir={folder}/run", "--steps_per_epoch=10"]
        config = command_line.parse(flags)
        run = build(config)
        tick()
        trainer = build_trainer(run, RunDirectory.of(config))
        trainer.trace()
        tick()
        # The first chunk alone, without the validation and the checkpoint that follow it in `fit`.
        chunk = trainer.trace()(iter(trainer._batches(0)), 10)
        chunk.embeddings.numpy()
        tick()
    pairs = itertools.pairwise(clock)
    return {phase: (end[0] - start[0], end[1] - start[1]) for phase, (start, end) in zip(PHASES, pairs)}


if __name__ == "__main__":
    main()
