"""A process that holds one problem and answers with what one way of evaluating it takes."""

from __future__ import annotations

import importlib
import multiprocessing
import time
from contextlib import suppress
from multiprocessing.connection import Connection
from pathlib import Path

from benchmarks import measuring, retrieval_cases
from benchmarks.processes import Process

_WARM_UP = retrieval_cases.Case("", 1_500, dimension=16)


# A way of evaluating, as a function of a problem.
ROWS = {
    "product": "benchmarks.retrieval_rows:product",
    "ours": "benchmarks.retrieval_rows:ours",
    "ours, R@1000": "benchmarks.retrieval_rows:ours_far",
    "original": "benchmarks.retrieval_rows:original",
    "PML + FAISS": "benchmarks.retrieval_theirs:with_faiss",
}


class Worker(Process):
    """One way of evaluating one problem, in its own process.

    Attributes:
        values: the metrics of the first call; empty before it.
        megabytes: the largest resident memory until the end of the first call, less that before it.
        seconds: (elapsed, processor) of each call.
    """

    def __init__(self, row: str, case: retrieval_cases.Case, folder: Path) -> None:
        super().__init__(multiprocessing.get_context("spawn"), _serve, row, case, folder)
        self.values: dict[str, float] = {}
        self.megabytes = 0.0
        self.seconds: list[tuple[float, float]] = []

    def measure(self) -> None:
        """Makes one call."""
        values, megabytes, seconds = self.ask()
        if not self.seconds:
            self.values, self.megabytes = values, megabytes
        self.seconds.append(seconds)


def _serve(connection: Connection, row: str, case: retrieval_cases.Case, folder: Path) -> None:
    module, _, name = row.partition(":")
    function = getattr(importlib.import_module(module), name)
    # Code is loaded, functions are traced and pools of threads start at the first call of all.
    function(retrieval_cases.as_problem(_WARM_UP, *retrieval_cases.make(_WARM_UP)))
    problem = retrieval_cases.read(case, folder)
    before = measuring.megabytes("VmRSS")
    connection.send(True)
    with suppress(EOFError):
        while connection.recv():
            started, processor_started = time.perf_counter(), time.process_time()
            values = function(problem)
            seconds = time.perf_counter() - started, time.process_time() - processor_started
            connection.send((values, measuring.megabytes("VmHWM") - before, seconds))
