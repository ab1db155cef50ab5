"""The tables and the headlines of the training step."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from benchmarks.common.results import Headline, machine_line

BASE, CCP = "loop, contrastive", "loop, ccp/contrastive"
# Largest ratios to the bare forward and backward pass.
AIMS = {BASE: 1.03, CCP: 1.05}


def sections(results: Mapping[str, Any]) -> dict[str, Iterator[str]]:
    return {"step": _tables(results)}


def _tables(results: Mapping[str, Any]) -> Iterator[str]:
    yield machine_line(results)
    yield ""
    for section in results["sections"].values():
        yield f"{section['title']}:"
        yield ""
        yield "| | ms a step (least to most) | ratio | processor ms | ratio |"
        yield "|---|---|---|---|---|"
        for row in section["rows"]:
            yield (
                f"| {row['name']} | {row['milliseconds']:.1f} ({row['least']:.1f} to {row['most']:.1f}) | "
                f"{row['ratio']:.3f} | {row['processor_milliseconds']:.1f} | {row['processor_ratio']:.3f} |"
            )
        yield ""


def headlines(results: Mapping[str, Any]) -> Iterator[Headline]:
    for section in results["sections"].values():
        for row in section["rows"]:
            if row["name"] in AIMS:
                what = f"{row['name']}, to the bare forward and backward pass; {section['title']}"
                yield Headline(what, row["ratio"], "×", AIMS[row["name"]])
