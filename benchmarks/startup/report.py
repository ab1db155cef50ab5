"""The table and the headlines of the startup benchmark."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from benchmarks.common.results import Headline, machine_line


def sections(results: Mapping[str, Any]) -> dict[str, Iterator[str]]:
    return {"startup": _table(results)}


def _table(results: Mapping[str, Any]) -> Iterator[str]:
    yield machine_line(results)
    yield ""
    yield "| | s | s of the processor |"
    yield "|---|---|---|"
    for name, (elapsed, processor) in results["rows"].items():
        yield f"| {name} | {elapsed:.1f} | {processor:.1f} |"


def headlines(results: Mapping[str, Any]) -> Iterator[Headline]:
    for name, most in (("train.py --help", 2.0), ("import to first chunk", 20.0)):
        yield Headline(name, results["rows"][name][0], " s", most)
