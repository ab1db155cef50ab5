"""What the benchmarks share: measuring tasks in turn, and writing down what was found, and where."""

from __future__ import annotations

import ctypes
import json
import os
import platform
import statistics
import time
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from ccp_dml import environment

FOLDER = Path(__file__).parent
DOCS = FOLDER.parent / "docs" / "performance.md"


class Times(NamedTuple):
    """Seconds of repeated runs of one task: elapsed (median, least, most), and of the processor (median)."""

    median: float
    least: float
    most: float
    processor: float

    def per(self, units: float) -> Times:
        """The same for one of so many units of work."""
        return Times(*(value / units for value in self))


class Ratio(NamedTuple):
    """How a task compares with its floor: medians over the repeats, elapsed and of the processor."""

    elapsed: float
    processor: float


class Headline(NamedTuple):
    """A figure that answers for a whole benchmark, and what it is to be: at most or at least a number."""

    what: str
    value: float
    unit: str
    at_most: float | None = None
    at_least: float | None = None

    @property
    def met(self) -> bool:
        """Whether the figure is what it is to be."""
        return not (
            (self.at_most is not None and self.value > self.at_most)
            or (self.at_least is not None and self.value < self.at_least)
        )


Tasks = Mapping[str, Callable[[], object]]
Seconds = dict[str, list[tuple[float, float]]]


def in_turns(tasks: Tasks, repeats: int, *, warm_ups: int = 1) -> Seconds:
    """(Elapsed, processor) seconds of each task, run in turn: a busy moment must not hit one task alone."""
    seconds: Seconds = {name: [] for name in tasks}
    for repeat in range(warm_ups + repeats):
        for name, task in tasks.items():
            started, processor_started = time.perf_counter(), time.process_time()
            task()
            found = time.perf_counter() - started, time.process_time() - processor_started
            if repeat >= warm_ups:
                seconds[name].append(found)
    return seconds


def times(rows: list[tuple[float, float]]) -> Times:
    elapsed, processor = zip(*rows)
    return Times(statistics.median(elapsed), min(elapsed), max(elapsed), statistics.median(processor))


def ratio(rows: list[tuple[float, float]], floor: list[tuple[float, float]]) -> Ratio:
    """Median of the ratios within a turn, in which both were measured one after the other."""
    pairs = [(one[0] / base[0], one[1] / base[1]) for one, base in zip(rows, floor)]
    return Ratio(*(statistics.median(column) for column in zip(*pairs)))


def machine() -> dict[str, Any]:
    """Where something was measured: processor, cores, load, versions and revision."""
    load = [round(number, 1) for number in os.getloadavg()]
    return {
        "processor": processor(),
        "cores": os.cpu_count(),
        "load_average": load,
        **environment.versions(),
        **environment.revision(),
    }


def processor() -> str:
    """The name of the processor."""
    for line in Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines():
        if line.startswith("model name"):
            return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()


def megabytes(entry: str) -> float:
    """An entry of Linux's account of this process: VmRSS is what it holds, VmHWM the most it ever held."""
    for text in Path("/proc/self/status").read_text(encoding="ascii").splitlines():
        if text.startswith(f"{entry}:"):
            return int(text.split()[1]) * 1024 / 1e6
    raise OSError(f"/proc/self/status has no {entry}; this benchmark needs Linux")


def forget_peak() -> None:
    """Gives freed memory back, and has the peak VmHWM counted anew (Linux)."""
    ctypes.CDLL(None).malloc_trim(0)
    Path("/proc/self/clear_refs").write_text("5", encoding="ascii")


def write(
    name: str, results: Mapping[str, Any], table: Iterable[str], headlines: Iterable[Headline] = ()
) -> None:
    """Writes `<name>.json` and the generated part of docs/performance.md that belongs to it."""
    figures = [headline._asdict() for headline in headlines]
    found = {"machine": machine(), **results, "headlines": figures}
    (FOLDER / f"{name}.json").write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")
    write_between(DOCS, name, [f"{summary(found['machine'])}.", "", *table])


def write_between(file: Path, name: str, lines: Iterable[str]) -> None:
    """Replaces what a command has written into a page, between the marks that bear its name."""
    begin, end = f"<!-- {name}: made by benchmarks.{name} -->", f"<!-- end of {name} -->"
    head, rest = file.read_text(encoding="utf-8").split(begin)
    file.write_text("\n".join([head + begin, "", *lines, "", end + rest.split(end)[1]]), encoding="utf-8")


def summary(of: Mapping[str, Any]) -> str:
    """A machine in a line."""
    load = of["load_average"][0]
    return f"{of['processor']}, {of['cores']} cores, load {load:g}; TensorFlow {of['tensorflow']}"
