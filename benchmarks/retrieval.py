"""Time and memory of the retrieval evaluation beside the product it cannot avoid and other ways to do it.

    make bench BENCHMARKS=retrieval                         # installs what it needs; 20,000 images: 2 minutes
    make bench BENCHMARKS=retrieval ARGS="--cases all"      # all sizes: about 20 minutes on 2 cores
    python -m benchmarks.retrieval --cases sop --rows product ours      # some rows; writes nothing

Rows: the bare float32 product, in the blocks of a search in float32; `evaluate_retrieval` (P@1, P@R, MAP@R
and R@k for k up to 8, then up to 1000); a stand-in for the original's evaluation (blocks of 128 queries,
top-k over whole rows, the query dropped as the first of its ranking); pytorch-metric-learning's
AccuracyCalculator with FAISS. The data are random unit vectors that lie nearer to their class than to others.

Each row of a case has a process of its own. They take turns; medians over the turns are reported with the
smallest and the largest, ratios are medians of the ratios within a turn, of elapsed time and of processor
time (which a busy machine disturbs less). A row is measured `--repeats` times, or twice if it has had
`--seconds_per_row` then. Memory is the largest resident memory during the first call less that before it, the
embeddings being loaded (Linux). P@1, P@R and MAP@R of all rows have to agree but for a few queries, whose
neighbours are so close that float32 rounding swaps them; the difference is reported.

Results go to benchmarks/retrieval.json, case by case, and the table in docs/performance.md is made from them.
A run continues where an earlier one on the same machine stopped: when `--minutes` are over, or by Ctrl-C.
"""

from __future__ import annotations

import argparse
import json
import os
import tempfile
import time
from contextlib import ExitStack
from pathlib import Path
from typing import Any

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import numpy as np

from benchmarks import measuring, retrieval_cases, retrieval_report
from benchmarks.retrieval_cases import CASES, Case
from benchmarks.retrieval_worker import ROWS, Worker

COMPARED = ("P@1", "P@R", "MAP@R")
# Of one metric, in queries: as many may change wholly.
QUERIES_THAT_MAY_DIFFER = 3
# They hold more rows than the others could search in reasonable time or memory.
ROWS_OF_LARGE_CASES = ("product", "ours", "ours, R@1000")


def main() -> None:
    options = parse_options()
    setting = measuring.machine()
    results = read(setting)
    deadline = time.monotonic() + 60.0 * options.minutes
    for name in options.cases:
        if name not in results or options.again:
            if time.monotonic() > deadline:
                raise SystemExit(f"{options.minutes:g} minutes are over; run again to continue")
            results[name] = measure(CASES[name], options)
            results = {case: results[case] for case in CASES if case in results}
            if not options.keep_files:
                measuring.write(
                    "retrieval",
                    {"cases": results},
                    retrieval_report.table(results),
                    retrieval_report.headlines(results),
                )
        print("\n".join(retrieval_report.lines(CASES[name], results[name])), flush=True)


def read(setting: dict[str, Any]) -> dict[str, Any]:
    """Cases that were measured on this machine."""
    path = measuring.FOLDER / "retrieval.json"
    if not path.exists():
        return {}
    found = json.loads(path.read_text(encoding="utf-8"))
    same = all(found["machine"][key] == setting[key] for key in ("processor", "cores", "tensorflow"))
    return found["cases"] if same else {}


def measure(case: Case, options: argparse.Namespace) -> dict[str, Any]:
    """The rows of a case."""
    names = [name for name in options.rows if case.gallery < 500_000 or name in ROWS_OF_LARGE_CASES]
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        for name, array in zip(("embeddings", "labels"), retrieval_cases.make(case)):
            np.save(folder / f"{name}.npy", array)
        workers = {name: stack.enter_context(Worker(ROWS[name], case, folder)) for name in names}
        take_turns(list(workers.values()), options)
    return {
        "difference": compare(case, workers),
        "rows": {name: summary(one, next(iter(workers.values()))) for name, one in workers.items()},
    }


def take_turns(workers: list[Worker], options: argparse.Namespace) -> None:
    for repeat in range(options.repeats):
        for one in workers:
            if repeat < 2 or sum(elapsed for elapsed, _ in one.seconds) < options.seconds_per_row:
                one.measure()


def compare(case: Case, workers: dict[str, Worker]) -> float:
    """The largest difference between rows of a metric; SystemExit if rounding does not explain it."""
    allowed = QUERIES_THAT_MAY_DIFFER / (case.queries or case.gallery)
    largest = 0.0
    for metric in COMPARED:
        values = {name: one.values[metric] for name, one in workers.items() if one.values}
        difference = max(values.values(), default=0.0) - min(values.values(), default=0.0)
        if difference > allowed:
            raise SystemExit(f"{case.title}: {metric} is {values}; expected them within {allowed:.1g}")
        largest = max(largest, difference)
    return largest


def summary(one: Worker, floor: Worker) -> dict[str, Any]:
    return {
        "seconds": measuring.times(one.seconds)._asdict(),
        "measurements": len(one.seconds),
        "to_first_row": measuring.ratio(one.seconds, floor.seconds)._asdict(),
        "megabytes": one.megabytes,
        "values": one.values,
    }


def parse_options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter, allow_abbrev=False
    )
    add = parser.add_argument
    names = [*CASES, "all"]
    add("--cases", nargs="+", choices=names, default=["20k"], metavar="NAME", help=", ".join(names))
    add("--rows", nargs="+", choices=ROWS, default=list(ROWS), metavar="NAME", help=", ".join(ROWS))
    add("--repeats", type=int, default=5, help="measurements of each row (5)")
    add("--seconds_per_row", type=float, default=40.0, help="then two measurements are enough (40)")
    add("--minutes", type=float, default=60.0, help="start no case after so long (60)")
    add("--again", action="store_true", help="measure anew what was measured before")
    options = parser.parse_args()
    if "all" in options.cases:
        options.cases = list(CASES)
    # Only whole results are kept.
    options.keep_files = set(options.rows) != set(ROWS)
    options.again |= options.keep_files
    return options


if __name__ == "__main__":
    main()
