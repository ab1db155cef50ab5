"""Time and memory of every loss beside pytorch-metric-learning's, on the same batches in the same run.

    make bench BENCHMARKS=losses                  # installs what it needs; B = 32 to 4096, D = 128 and 512
    python -m benchmarks.losses --quick           # B = 32 and 512, D = 128; writes nothing
    python -m benchmarks.losses --losses triplet --batch_sizes 512 2048 --again

A call is the value of a loss and its gradients for embeddings and proxies: of ours as a `tf.function`, of the
other library as its users run it, eagerly (torch.compile is not used). Both get the same embeddings, labels,
proxies, memory, settings and number of threads; value and gradient have to agree before anything is timed.
Each loss of each library runs in a process of its own. The two take turns, and the median over the repeats is
reported with the smallest and the largest. The ratios are those of the medians, of elapsed time and of
processor time, which a busy machine disturbs less (use `--threads=1` there).
Memory is the largest resident memory during the first call less that before it (Linux); of ours it holds what
optimises the graph. Where the other library would need more than `--memory_budget`, it is not run; where it
has no such loss, ours is reported alone.

Batches hold four samples of a class (two for cross_entropy), sample by sample; proxies are those of at least
100 classes, and the memory of xbm holds 4096 samples.

Results go to benchmarks/losses.json, row by row, and the table in docs/performance.md is made from them. A
run continues where an earlier one on the same machine stopped: when `--minutes` are over, or by Ctrl-C.
"""

from __future__ import annotations

import argparse
import os
import statistics
import time
from pathlib import Path
from typing import Any

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import numpy as np

from benchmarks import losses_report
from benchmarks.loss_cases import CASES, bytes_of_theirs
from benchmarks.loss_worker import LIBRARIES, Worker

RESULTS = Path(__file__).with_name("losses.json")
DOCS = Path(__file__).parents[1] / "docs" / "performance.md"
BATCH_SIZES, DIMENSIONS = (32, 128, 512, 1024, 2048, 4096), (128, 512)
# Of the value, relative; of the gradient, the norm of the difference relative to the norm.
TOLERANCES = (1e-3, 1e-2)


def main() -> None:
    options = parse_options()
    setting = losses_report.setting(options.threads)
    results = {} if options.quick else losses_report.read(RESULTS, setting)
    print(f"{setting}\n")
    print(losses_report.HEADER)
    deadline = time.monotonic() + 60.0 * options.minutes
    for name in options.losses:
        for dimension in options.dimensions:
            for batch_size in options.batch_sizes:
                key = f"{name}/{batch_size}/{dimension}"
                if key not in results or options.again:
                    if time.monotonic() > deadline:
                        raise SystemExit(f"{options.minutes:g} minutes are over; run again to continue")
                    results[key] = measure(name, batch_size, dimension, options)
                    if not options.quick:
                        losses_report.write(RESULTS, setting, results)
                print(losses_report.line(key, results[key]), flush=True)
    if not options.quick:
        losses_report.write_table(DOCS, setting, results)


def measure(name: str, batch_size: int, dimension: int, options: argparse.Namespace) -> dict[str, Any]:
    """A row of the results: what each library takes, and how far their values are apart."""
    case = CASES[name]
    arguments = (name, batch_size, dimension, options.threads)
    needed = bytes_of_theirs(case, batch_size) / 2**30
    if not case.theirs or needed > options.memory_budget:
        with Worker("ours", *arguments) as alone:
            row = {"ours": summary(alone, time_in_turns([alone], options)[0])}
        if case.theirs:
            row["skipped"] = f"needs about {needed:.0f} GiB"
        return row
    with Worker("ours", *arguments) as ours, Worker("theirs", *arguments) as theirs:
        differences = compare(name, ours, theirs)
        both = [ours, theirs]
        rows = map(summary, both, time_in_turns(both, options))
        return {**dict(zip(LIBRARIES, rows)), **differences}


def compare(name: str, ours: Worker, theirs: Worker) -> dict[str, float]:
    of_gradient = np.linalg.norm(ours.gradient - theirs.gradient) / np.linalg.norm(theirs.gradient)
    of_value = np.divide(abs(ours.value - theirs.value), abs(theirs.value))
    if not np.isfinite(of_gradient):
        raise SystemExit(f"{name}: its gradient is zero on this batch; expected a batch that it learns from")
    if of_value > TOLERANCES[0] or of_gradient > TOLERANCES[1]:
        raise SystemExit(
            f"{name}: ours is {ours.value:.6g}, theirs {theirs.value:.6g}, and the gradients differ by "
            f"{of_gradient:.2g} of their norm; expected at most {TOLERANCES[0]:g} and {TOLERANCES[1]:g}"
        )
    return {"value_difference": float(of_value), "gradient_difference": float(of_gradient)}


def time_in_turns(workers: list[Worker], options: argparse.Namespace) -> list[list[tuple[float, float]]]:
    """(Elapsed, processor) seconds of a call, several times (three if it is slow), each worker in turn."""
    seconds: list[list[tuple[float, float]]] = [[] for _ in workers]
    deadline = time.monotonic() + options.seconds_per_row
    for repeat in range(options.repeats):
        if repeat >= 3 and time.monotonic() > deadline:
            break
        for found, one in zip(seconds, workers):
            found.append(one.measure())
    return seconds


def summary(measured: Worker, seconds: list[tuple[float, float]]) -> dict[str, float]:
    elapsed, processor = ([1e3 * second for second in column] for column in zip(*seconds))
    return {
        "milliseconds": statistics.median(elapsed),
        "least": min(elapsed),
        "most": max(elapsed),
        "processor_milliseconds": statistics.median(processor),
        "mebibytes": measured.mebibytes,
    }


def parse_options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter, allow_abbrev=False
    )
    add = parser.add_argument
    add("--losses", nargs="+", choices=CASES, default=list(CASES), metavar="NAME", help=", ".join(CASES))
    add("--batch_sizes", nargs="+", type=int, help="32 128 512 1024 2048 4096")
    add("--dimensions", nargs="+", type=int, help="128 512")
    add("--repeats", type=int, default=9, help="measurements of each row (9)")
    add("--seconds_per_row", type=float, default=20.0, help="then three measurements are enough (20)")
    add("--threads", type=int, default=os.cpu_count(), help="of either library (all cores)")
    add("--memory_budget", type=float, default=8.0, help="GiB that the other library may need (8)")
    add("--minutes", type=float, default=60.0, help="start no row after so long (60)")
    add("--again", action="store_true", help="measure anew what was measured before")
    add("--quick", action="store_true", help="small grid, result files stay as they are")
    options = parser.parse_args()
    options.batch_sizes = options.batch_sizes or ((32, 512) if options.quick else BATCH_SIZES)
    options.dimensions = options.dimensions or ((128,) if options.quick else DIMENSIONS)
    return options


if __name__ == "__main__":
    main()
