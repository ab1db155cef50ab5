"""Time and memory of the retrieval evaluation beside the bare product and other implementations.

    make bench BENCHMARKS=retrieval                       # 20,000 images: 2 minutes
    make bench BENCHMARKS=retrieval ARGS="--cases all"    # all sizes: about 20 minutes on 2 cores
    python -m benchmarks.retrieval.run --quick            # 20,000 images twice; writes nothing

Rows: the bare float32 product, in the blocks of a search in float32; `evaluate_retrieval` (P@1, P@R, MAP@R
and R@k for k up to 8, then up to 1000); a stand-in for the original's evaluation (blocks of 128 queries,
top-k over whole rows, the query dropped as the first of its ranking); pytorch-metric-learning's
AccuracyCalculator with FAISS. The data are random unit vectors that lie nearer to their class than to others.

Each row of a case has a process of its own. They take turns. Reported are medians over the turns with the
smallest and the largest; ratios are medians of the ratios within a turn, of elapsed time and of processor
time, which a busy machine disturbs less. Each row is measured 5 times, or twice if that takes 40 seconds.
Memory is the peak during the first call less the resident memory before it, embeddings loaded (Linux). P@1,
P@R and MAP@R of all rows have to agree except for a few queries, whose neighbours are so close that float32
rounding swaps them; the difference is reported.

Results are written case by case. A run continues where an earlier one on the same machine stopped: after
`--minutes`, or by Ctrl-C.
"""

from __future__ import annotations

import importlib
import tempfile
import time
from collections.abc import Mapping, Sequence
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from benchmarks.common import measuring, results
from benchmarks.common.processes import Process
from benchmarks.retrieval.cases import CASES, Case, as_problem, make, read

# The function of a problem that evaluates a row.
ROWS = {
    "product": "benchmarks.retrieval.evaluations:product",
    "ours": "benchmarks.retrieval.evaluations:ours",
    "ours, R@1000": "benchmarks.retrieval.evaluations:ours_far",
    "original": "benchmarks.retrieval.evaluations:original",
    "PML + FAISS": "benchmarks.retrieval.pytorch_evaluation:with_faiss",
}
COMPARED = ("P@1", "P@R", "MAP@R")
# The difference of a metric that rounding explains, in queries that change from 0 to 1.
QUERIES_THAT_MAY_DIFFER = 3
# The others would take too much time or memory on a large case.
LARGE, ROWS_OF_LARGE_CASES = 500_000, ("product", "ours", "ours, R@1000")
REPEATS, SECONDS_PER_ROW = 5, 40.0
_WARM_UP = Case("", 1_500, dimension=16)


class Evaluated(Protocol):
    """A row with the metrics of its first call; none for the bare product."""

    values: dict[str, float]


class Row(Process):
    """A row of a case in its own process.

    Attributes:
        values: the metrics of the first call.
        megabytes: the peak during the first call, less the resident memory before it.
        seconds: of each call.
    """

    def __init__(self, name: str, case: Case, folder: Path) -> None:
        super().__init__(_serve, ROWS[name], case, folder)
        self.values: dict[str, float] = {}
        self.megabytes = 0.0
        self.seconds: list[measuring.Seconds] = []

    def measure(self) -> None:
        """Makes one call."""
        values, megabytes, seconds = self.ask()
        if not self.seconds:
            self.values, self.megabytes = values, megabytes
        self.seconds.append(seconds)


def main() -> None:
    parser = results.make_parser(__doc__)
    names = [*CASES, "all"]
    parser.add_argument("--cases", nargs="+", choices=names, default=["20k"], help="default: 20k")
    parser.add_argument("--minutes", type=float, default=60.0, help="start no case after that (default: 60)")
    parser.add_argument("--again", action="store_true", help="repeat cases that have results")
    options = parser.parse_args()
    cases = list(CASES) if "all" in options.cases else options.cases
    found = {} if options.quick else results.read_of_this_machine("retrieval").get("cases", {})
    deadline = time.monotonic() + 60.0 * options.minutes
    for name in cases:
        if name not in found or options.again:
            if time.monotonic() > deadline:
                raise SystemExit(f"{options.minutes:g} minutes are over; run again to continue")
            found[name] = measure(CASES[name], 2 if options.quick else REPEATS)
            found = {case: found[case] for case in CASES if case in found}
            results.publish("retrieval", {"cases": found}, write=not options.quick)


def measure(case: Case, repeats: int) -> dict[str, Any]:
    """The results of a case."""
    names = ROWS if case.gallery < LARGE else ROWS_OF_LARGE_CASES
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        for name, array in zip(("embeddings", "labels"), make(case)):
            np.save(folder / f"{name}.npy", array)
        rows = {name: stack.enter_context(Row(name, case, folder)) for name in names}
        take_turns(list(rows.values()), repeats)
    first = next(iter(rows.values()))
    return {
        "difference": compare(case, rows),
        "rows": {
            name: {
                "seconds": measuring.summarize(row.seconds)._asdict(),
                "measurements": len(row.seconds),
                "to_first_row": measuring.ratio(row.seconds, first.seconds)._asdict(),
                "megabytes": row.megabytes,
                "values": row.values,
            }
            for name, row in rows.items()
        },
    }


def take_turns(rows: Sequence[Row], repeats: int) -> None:
    for turn in range(repeats):
        for row in rows:
            if turn < 2 or sum(elapsed for elapsed, _ in row.seconds) < SECONDS_PER_ROW:
                row.measure()


def compare(case: Case, rows: Mapping[str, Evaluated]) -> float:
    """The largest difference of a metric between rows; SystemExit if rounding does not explain it."""
    allowed = QUERIES_THAT_MAY_DIFFER / (case.queries or case.gallery)
    largest = 0.0
    for metric in COMPARED:
        values = {name: row.values[metric] for name, row in rows.items() if row.values}
        difference = max(values.values(), default=0.0) - min(values.values(), default=0.0)
        if difference > allowed:
            raise SystemExit(f"{case.title}: {metric} is {values}; expected them within {allowed:.1g}")
        largest = max(largest, difference)
    return largest


def _serve(connection: Any, function: str, case: Case, folder: Path) -> None:
    module, _, name = function.partition(":")
    evaluate = getattr(importlib.import_module(module), name)
    # The very first call loads code, traces functions and starts threads.
    evaluate(as_problem(_WARM_UP, *make(_WARM_UP)))
    problem = read(case, folder)
    before = measuring.megabytes("VmRSS")
    connection.send(True)
    values = {}

    def call() -> None:
        values.update(evaluate(problem))

    with suppress(EOFError):
        while connection.recv():
            seconds = measuring.timed(call)
            connection.send((values, measuring.megabytes("VmHWM") - before, seconds))


if __name__ == "__main__":
    main()
