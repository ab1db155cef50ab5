"""The table, the sentences and the headlines of the reset benchmark."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from benchmarks.common.results import Headline, machine_line

PROXIES_PER_CLASS, DRAWS, DIMENSIONS = 4, 7, 128
# Aim for k-center.
MOST_SECONDS = 0.5


def sections(results: Mapping[str, Any]) -> dict[str, Iterator[str]]:
    return {"reset": _lines(results)}


def _lines(results: Mapping[str, Any]) -> Iterator[str]:
    yield machine_line(results)
    yield ""
    yield f"On the {results['images']:,} training images of the emoji:"
    yield ""
    yield "| | s (least to most) | ratio | processor s | ratio |"
    yield "|---|---|---|---|---|"
    for row in results["resets"]:
        yield (
            "| {name} | {seconds:.2f} ({least:.2f} to {most:.2f}) | {ratio:.2f} | {processor_seconds:.2f} | "
            "{processor_ratio:.2f} |"
        ).format(**row)
    yield ""
    yield (
        f"Greedy k-center of 11,318 × {DRAWS} × {DIMENSIONS}, {PROXIES_PER_CLASS} centers given and as many "
        "chosen: {seconds:.2f} s, {processor_seconds:.2f} s of the processor (aim: {aim:g} s)."
    ).format(aim=MOST_SECONDS, **results["k_center"])
    yield ""
    yield (
        "With b = {b} and as many images and classes as Stanford Online Products ({images:,} images), "
        "a reset embeds {embedded:,} images; the original, one per draw, {draws:,}."
    ).format(b=DRAWS, **results["counts"])


def headlines(results: Mapping[str, Any]) -> Iterator[Headline]:
    reset = next(row for row in results["resets"] if row["name"] == "reset")
    yield Headline("a reset, to a bare inference pass over its images", reset["ratio"], "×", 1.1)
    k_center = f"k-center of 11,318 × {DRAWS} × {DIMENSIONS}"
    yield Headline(k_center, results["k_center"]["seconds"], " s", MOST_SECONDS)
