"""Time and memory of tasks, measured in turns."""

from __future__ import annotations

import ctypes
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

# Elapsed seconds and those of the processor.
Seconds = tuple[float, float]


class Times(NamedTuple):
    """Seconds of repeated calls: elapsed (median, least, most), and of the processor (median)."""

    median: float
    least: float
    most: float
    processor: float

    def per(self, units: float) -> Times:
        """The times of one of `units` units of work."""
        return Times(*(value / units for value in self))


class Ratio(NamedTuple):
    """The ratio of a task to its baseline: medians over the turns, elapsed and of the processor."""

    elapsed: float
    processor: float


def timed(task: Callable[[], object]) -> Seconds:
    """Seconds of one call."""
    started, processor_started = time.perf_counter(), time.process_time()
    task()
    return time.perf_counter() - started, time.process_time() - processor_started


def in_turns(
    tasks: Mapping[str, Callable[[], object]], repeats: int, *, warm_ups: int = 1
) -> dict[str, list[Seconds]]:
    """Seconds of each task. The tasks take turns, so that a busy moment does not hit one of them alone."""
    seconds: dict[str, list[Seconds]] = {name: [] for name in tasks}
    for turn in range(warm_ups + repeats):
        for name, task in tasks.items():
            found = timed(task)
            if turn >= warm_ups:
                seconds[name].append(found)
    return seconds


def summarize(calls: Sequence[Seconds]) -> Times:
    """Median, least and most of several calls."""
    elapsed, processor = zip(*calls)
    return Times(statistics.median(elapsed), min(elapsed), max(elapsed), statistics.median(processor))


def ratio(calls: Sequence[Seconds], baseline: Sequence[Seconds]) -> Ratio:
    """Median of the ratios within a turn, in which both were measured one after the other."""
    pairs = [(one[0] / base[0], one[1] / base[1]) for one, base in zip(calls, baseline)]
    return Ratio(*(statistics.median(column) for column in zip(*pairs)))


def megabytes(entry: str) -> float:
    """Memory of this process (Linux): `VmRSS`, the resident memory, or `VmHWM`, its peak."""
    for text in Path("/proc/self/status").read_text(encoding="ascii").splitlines():
        if text.startswith(f"{entry}:"):
            return int(text.split()[1]) * 1024 / 1e6
    raise OSError(f"/proc/self/status has no {entry}; this benchmark needs Linux")


def reset_peak() -> None:
    """Gives freed memory back to the system and starts the peak `VmHWM` anew (Linux)."""
    ctypes.CDLL(None).malloc_trim(0)
    Path("/proc/self/clear_refs").write_text("5", encoding="ascii")
