"""A process that holds one problem and answers with what one way of evaluating it takes."""

from __future__ import annotations

import importlib
import multiprocessing
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

from benchmarks import measuring, retrieval_cases

_WARM_UP = retrieval_cases.Case("", 1_500, dimension=16)


# A way of evaluating, as a function of a problem.
ROWS = {
    "product": "benchmarks.retrieval_rows:product",
    "ours": "benchmarks.retrieval_rows:ours",
    "ours, R@1000": "benchmarks.retrieval_rows:ours_far",
    "original": "benchmarks.retrieval_rows:original",
    "PML + FAISS": "benchmarks.retrieval_theirs:with_faiss",
}


class Worker:
    """One way of evaluating one problem, in its own process.

    Attributes:
        values: the metrics of the first call; empty before it.
        megabytes: the largest resident memory until the end of the first call, less that before it.
        seconds: (elapsed, processor) of each call.
    """

    def __init__(self, row: str, case: retrieval_cases.Case, folder: Path) -> None:
        context = multiprocessing.get_context("spawn")
        self._connection, other = context.Pipe()
        self._process = context.Process(target=_serve, args=(other, row, case, folder), daemon=True)
        self._process.start()
        other.close()
        self.values: dict[str, float] = {}
        self.megabytes = 0.0
        self.seconds: list[tuple[float, float]] = []
        self._receive()

    def measure(self) -> None:
        """Makes one call."""
        self._connection.send(True)
        values, megabytes, seconds = self._receive()
        if not self.seconds:
            self.values, self.megabytes = values, megabytes
        self.seconds.append(seconds)

    def close(self) -> None:
        self._connection.close()
        self._process.join()

    def _receive(self) -> Any:
        try:
            return self._connection.recv()
        except EOFError:
            self._process.join()
            raise RuntimeError(f"the process ended with exit code {self._process.exitcode}") from None


@contextmanager
def worker(*args: Any) -> Iterator[Worker]:
    made = Worker(*args)
    try:
        yield made
    finally:
        made.close()


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
