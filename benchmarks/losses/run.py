"""Time and memory of every loss beside pytorch-metric-learning's, on the same batches.

    make bench BENCHMARKS=losses                  # installs the other library; B = 32 to 4096
    python -m benchmarks.losses.run --quick       # B = 32, D = 128, few repeats
    python -m benchmarks.losses.run --losses triplet --batch_sizes 512 2048 --again

A call is the value of a loss and its gradients for embeddings and proxies: ours as a `tf.function`, the other
library's eagerly, as its users run it (without torch.compile). Both get the same embeddings, labels,
proxies, memory, settings and number of threads, and their values and gradients have to agree. Each loss of
each library has a process of its own. The two take turns; reported are medians with the smallest and the
largest, and ratios of the medians, of elapsed time and of processor time, which a busy machine disturbs less
(use `--threads=1` there). Memory is the peak during the first call less the resident memory before it
(Linux); ours includes the optimisation of the graph. The other library is not run where it would need more
than 8 GiB; a loss that it does not have is reported alone.

Batches hold four samples of a class (two for cross_entropy), sample by sample; proxies are of at least 100
classes, and the memory of xbm holds 4096 samples.

Results are written row by row. A run continues where an earlier one on the same machine stopped: after
`--minutes`, or by Ctrl-C. In them `theirs` is pytorch-metric-learning.
"""

from __future__ import annotations

import importlib.metadata
import os
import time
from collections.abc import Sequence
from contextlib import suppress
from typing import Any

import numpy as np

from benchmarks.common import measuring, results
from benchmarks.common.processes import Process
from benchmarks.losses.cases import CASES, Call, make_problem, peer_bytes

BATCH_SIZES, DIMENSIONS = (32, 128, 512, 1024, 2048, 4096), (128, 512)
REPEATS, FEWEST_REPEATS, SECONDS_PER_ROW = 9, 3, 20.0
PEER_GIBIBYTES = 8.0
# Largest relative difference of the value, and of the gradient by its norm.
TOLERANCES = (1e-3, 1e-2)
_MAKERS = {"ours": "benchmarks.losses.tensorflow_losses", "theirs": "benchmarks.losses.pytorch_losses"}
_PRELOAD = ["tensorflow", "torch", "pytorch_metric_learning.losses", "ccp_dml.losses.registry"]
# Idle threads spin for a while after a call.
_PAUSE = 0.01


class Library(Process):
    """One loss of one library in its own process.

    Attributes:
        value: the loss of the first call.
        gradient: its gradient for the embeddings.
        mebibytes: the peak during the first call, less the resident memory before it.
    """

    def __init__(self, library: str, name: str, batch_size: int, dimension: int, threads: int) -> None:
        super().__init__(_serve, library, name, batch_size, dimension, threads, preload=_PRELOAD)
        self.value, self.gradient, self.mebibytes = self.first

    def measure(self) -> measuring.Seconds:
        """Seconds of a call."""
        time.sleep(_PAUSE)
        return self.ask()


def main() -> None:
    parser = results.make_parser(__doc__)
    add = parser.add_argument
    add("--losses", nargs="+", choices=CASES, default=list(CASES), metavar="NAME", help=", ".join(CASES))
    add("--batch_sizes", nargs="+", type=int, default=BATCH_SIZES, help="default: 32 128 512 1024 2048 4096")
    add("--dimensions", nargs="+", type=int, default=DIMENSIONS, help="default: 128 512")
    add("--threads", type=int, default=os.cpu_count(), help="of either library (default: all cores)")
    add("--minutes", type=float, default=60.0, help="start no row after that (default: 60)")
    add("--again", action="store_true", help="repeat rows that have results")
    options = parser.parse_args()
    if options.quick:
        options.batch_sizes, options.dimensions = (32,), (128,)
    setting = describe(options.threads)
    found = {} if options.quick else results.read("losses")
    rows = found["results"] if found.get("setting") == setting else {}
    deadline = time.monotonic() + 60.0 * options.minutes
    for name in options.losses:
        for dimension in options.dimensions:
            for batch_size in options.batch_sizes:
                key = f"{name}/{batch_size}/{dimension}"
                if key in rows and not options.again:
                    continue
                if time.monotonic() > deadline:
                    raise SystemExit(f"{options.minutes:g} minutes are over; run again to continue")
                repeats = FEWEST_REPEATS if options.quick else REPEATS
                rows[key] = measure(name, batch_size, dimension, options.threads, repeats)
                print(f"{key}: {rows[key]['ours']['milliseconds']:.3g} ms", flush=True)
                if not options.quick:
                    results.write_results("losses", {"setting": setting, "results": rows})
    results.show("losses", {"setting": setting, "results": rows})


def describe(threads: int) -> str:
    """Processor, threads and versions, by which results are told apart."""
    packages = ("tensorflow", "torch", "pytorch-metric-learning")
    versions = ", ".join(f"{package} {importlib.metadata.version(package)}" for package in packages)
    return f"{results.processor()}, {threads} threads; {versions}"


def measure(name: str, batch_size: int, dimension: int, threads: int, repeats: int) -> dict[str, Any]:
    """A row of the results."""
    case = CASES[name]
    needed = peer_bytes(case, batch_size) / 2**30
    arguments = (name, batch_size, dimension, threads)
    if not case.peer or needed > PEER_GIBIBYTES:
        with Library("ours", *arguments) as ours:
            [row] = summaries([ours], repeats)
        skipped = {"skipped": f"needs about {needed:.0f} GiB"} if case.peer else {}
        return {"ours": row, **skipped}
    with Library("ours", *arguments) as ours, Library("theirs", *arguments) as theirs:
        differences = compare(name, ours, theirs)
        return {**dict(zip(_MAKERS, summaries([ours, theirs], repeats))), **differences}


def compare(name: str, ours: Library, theirs: Library) -> dict[str, float]:
    """The differences of value and gradient; SystemExit if rounding does not explain them."""
    gradient = np.linalg.norm(ours.gradient - theirs.gradient) / np.linalg.norm(theirs.gradient)
    value = np.divide(abs(ours.value - theirs.value), abs(theirs.value))
    if not np.isfinite(gradient):
        raise SystemExit(f"{name}: the gradient is zero on this batch; expected a batch with a gradient")
    if value > TOLERANCES[0] or gradient > TOLERANCES[1]:
        raise SystemExit(
            f"{name}: ours is {ours.value:.6g}, theirs {theirs.value:.6g}, and the gradients differ by "
            f"{gradient:.2g} of their norm; expected at most {TOLERANCES[0]:g} and {TOLERANCES[1]:g}"
        )
    return {"value_difference": float(value), "gradient_difference": float(gradient)}


def summaries(libraries: Sequence[Library], repeats: int) -> list[dict[str, float]]:
    """Time and memory of each library, measured in turns."""
    seconds: list[list[measuring.Seconds]] = [[] for _ in libraries]
    deadline = time.monotonic() + SECONDS_PER_ROW
    for turn in range(repeats):
        if turn >= FEWEST_REPEATS and time.monotonic() > deadline:
            break
        for calls, library in zip(seconds, libraries):
            calls.append(library.measure())
    found = [measuring.summarize(calls).per(1e-3) for calls in seconds]
    return [
        {
            "milliseconds": times.median,
            "least": times.least,
            "most": times.most,
            "processor_milliseconds": times.processor,
            "mebibytes": library.mebibytes,
        }
        for library, times in zip(libraries, found)
    ]


def _serve(connection: Any, library: str, name: str, batch_size: int, dimension: int, threads: int) -> None:
    maker = importlib.import_module(_MAKERS[library])
    maker.limit_threads(threads)
    case = CASES[name]
    # The very first call loads code and starts threads.
    maker.make(case, make_problem(case, 2 * case.per_class, dimension))()
    call = maker.make(case, make_problem(case, batch_size, dimension))
    measuring.reset_peak()
    before = measuring.megabytes("VmRSS")
    # Memory of the first call: a framework may keep what it has allocated for the next one.
    value, gradients = call()
    mebibytes = (measuring.megabytes("VmHWM") - before) * 1e6 / 2**20
    gradient = np.array(gradients[0])
    del gradients
    calls = int(np.clip(0.05 / _seconds(call, 3)[1], 1, 100))
    connection.send((value, gradient, mebibytes))
    with suppress(EOFError):
        while connection.recv():
            connection.send(_seconds(call, calls))


def _seconds(call: Call, calls: int) -> measuring.Seconds:
    """Mean seconds of several calls."""

    def repeat() -> None:
        for _ in range(calls):
            call()

    elapsed, processor = measuring.timed(repeat)
    return elapsed / calls, processor / calls


if __name__ == "__main__":
    main()
