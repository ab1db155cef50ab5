"""The table of the shares of a run's time."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from benchmarks.common.results import Headline, machine_line

COLUMNS = ("training", "data_wait", "validation", "resets", "other")


def sections(results: Mapping[str, Any]) -> dict[str, Iterator[str]]:
    return {"time_shares": _table(results)}


def _table(results: Mapping[str, Any]) -> Iterator[str]:
    yield machine_line(results)
    yield ""
    yield "| | training | of it, waiting for data | validation | resets | other |"
    yield "|---|---|---|---|---|---|"
    for name, shares in results["shares"].items():
        yield f"| {name} | " + " | ".join(f"{shares[column]:.1%}" for column in COLUMNS) + " |"


def headlines(results: Mapping[str, Any]) -> Iterator[Headline]:
    yield from ()
