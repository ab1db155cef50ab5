"""A process that holds one loss of one library and answers with what a call of it takes."""

from __future__ import annotations

import multiprocessing
import time
from multiprocessing.connection import Connection

import numpy as np

from benchmarks import loss_cases, measuring
from benchmarks.processes import Process

LIBRARIES = ("ours", "theirs")
_PRELOADED = ["tensorflow", "torch", "pytorch_metric_learning.losses", "ccp_dml.losses.registry", __name__]
# Longer than what an idle pool of threads spins for after a call.
_PAUSE = 0.01


class Worker(Process):
    """One loss of one library in its own process.

    Attributes:
        value: the loss of the first call.
        gradient: its gradient for the embeddings.
        mebibytes: the largest resident memory during the first call, less that before it.
        calls: how many calls one measurement is made of.
    """

    def __init__(self, library: str, name: str, batch_size: int, dimension: int, threads: int) -> None:
        context = multiprocessing.get_context("forkserver")
        # Forked from a process that has imported everything and used nothing.
        context.set_forkserver_preload(_PRELOADED)
        super().__init__(context, _serve, library, name, batch_size, dimension, threads)
        self.value, self.gradient, self.mebibytes, self.calls = self.first

    def measure(self) -> tuple[float, float]:
        """(Elapsed, processor) seconds of a call."""
        time.sleep(_PAUSE)
        seconds: tuple[float, float] = self.ask()
        return seconds


def _serve(
    connection: Connection, library: str, name: str, batch_size: int, dimension: int, threads: int
) -> None:
    _limit_threads(library, threads)
    case = loss_cases.CASES[name]
    make = loss_cases.ours if library == "ours" else loss_cases.theirs
    # Code is loaded, and pools of threads start, at the first call of all.
    make(case, loss_cases.make_problem(case, 2 * case.per_class, dimension))()
    step = make(case, loss_cases.make_problem(case, batch_size, dimension))
    measuring.forget_peak()
    before = measuring.megabytes("VmRSS")
    # The first call: a framework may keep what it has allocated for the next one.
    value, gradients = step()
    mebibytes = (measuring.megabytes("VmHWM") - before) * 1e6 / 2**20
    gradient = np.array(gradients[0])
    del gradients
    calls = int(np.clip(0.05 / _time(step, 3)[1], 1, 100))
    connection.send((value, gradient, mebibytes, calls))
    while True:
        try:
            connection.recv()
        except EOFError:
            return
        connection.send(_time(step, calls))


def _time(step: loss_cases.Step, calls: int) -> tuple[float, float]:
    start, processor_start = time.perf_counter(), time.process_time()
    for _ in range(calls):
        step()
    return (time.perf_counter() - start) / calls, (time.process_time() - processor_start) / calls


def _limit_threads(library: str, threads: int) -> None:
    if library == "ours":
        import tensorflow as tf

        tf.config.threading.set_intra_op_parallelism_threads(threads)
        tf.config.threading.set_inter_op_parallelism_threads(threads)
    else:
        import torch

        torch.set_num_threads(threads)
