"""The table and the headlines of the input pipeline."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from benchmarks.common.results import Headline, machine_line


def sections(results: Mapping[str, Any]) -> dict[str, Iterator[str]]:
    return {"input": _table(results)}


def _table(results: Mapping[str, Any]) -> Iterator[str]:
    yield machine_line(results)
    yield ""
    yield "| | images/s | to (a) | to (b) | images/s of the processor | to (a) | to (b) |"
    yield "|---|---|---|---|---|---|---|"
    for row in results["rows"]:
        cells = [f"{row['per_second']:.0f}", _times(row["to_decoding"]), _times(row["to_original"])]
        cells += [f"{row['per_processor_second']:.0f}"]
        cells += [_times(row["to_decoding_processor"]), _times(row["to_original_processor"])]
        yield f"| {row['name']} | " + " | ".join(cells) + " |"


def headlines(results: Mapping[str, Any]) -> Iterator[Headline]:
    rows = {row["name"]: row for row in results["rows"]}
    for name, least in (("training", 2.5), ("test", 1.5)):
        speed = rows[name]["to_original"]
        yield Headline(f"{name} images, to the original's way", speed, "×", at_least=least)
    yield Headline("training images, to bare decoding", rows["training"]["to_decoding"], "×", at_least=1.0)


def _times(value: float | None) -> str:
    return "" if value is None else f"{value:.2f}×"
