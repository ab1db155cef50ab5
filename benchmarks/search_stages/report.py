"""The table of the stages of a search."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from benchmarks.common.results import Headline, machine_line

PRODUCT, CHOICE, RANKING = "product", "choice of candidates", "exact ranking"
POOLED, REDUCED = "of it, maxima of chunks", "these by tf.reduce_max"
STAGES = (PRODUCT, CHOICE, POOLED, REDUCED, RANKING)


def sections(results: Mapping[str, Any]) -> dict[str, Iterator[str]]:
    return {"search_stages": _table(results)}


def _table(results: Mapping[str, Any]) -> Iterator[str]:
    yield machine_line(results)
    yield ""
    yield "Seconds of all blocks:"
    yield ""
    yield "| | scores | block | candidates | " + " | ".join(STAGES) + " |"
    yield "|---|---|---|---|" + "---|" * len(STAGES)
    for row in results["rows"]:
        cells = [row["title"], row["type"], f"{row['queries']} × {row['gallery']:,}", str(row["candidates"])]
        cells += [f"{row['seconds'][stage]:.2f}" if stage in row["seconds"] else "" for stage in STAGES]
        yield f"| {' | '.join(cells)} |"


def headlines(results: Mapping[str, Any]) -> Iterator[Headline]:
    yield from ()
