"""The table and the headlines of the losses."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from benchmarks.common.results import Headline
from benchmarks.losses.cases import CASES

Row = Mapping[str, Any]


def sections(results: Mapping[str, Any]) -> dict[str, Iterator[str]]:
    return {"losses": _table(results)}


def headlines(results: Mapping[str, Any]) -> Iterator[Headline]:
    compared = {_place(key): row for key, row in results["results"].items() if "theirs" in row}
    if not compared:
        return
    least = min(map(_ratio, compared.values()))
    yield Headline(f"least speed of {len(compared)} settings, to the peer", least, "×", at_least=1.0)
    triplets = [_ratio(row) for (name, size, _), row in compared.items() if "triplet" in name and size >= 512]
    if triplets:
        yield Headline("triplets from B = 512 on, least", min(triplets), "×", at_least=3.0)


def _table(results: Mapping[str, Any]) -> Iterator[str]:
    yield f"{results['setting']}."
    yield ""
    rows = {_place(key): row for key, row in results["results"].items()}
    batch_sizes = sorted({batch_size for _, batch_size, _ in rows})
    compared = [row for row in rows.values() if "theirs" in row]
    slower = sum(_ratio(row) < 1.0 for row in compared)
    slower_by_processor = sum(_ratio(row, "processor_milliseconds") < 1.0 for row in compared)
    yield (
        f"Of {len(compared)} rows that both libraries ran, ours is slower in {slower}; "
        f"by processor time in {slower_by_processor}."
    )
    yield ""
    yield "| loss | D | " + " | ".join(f"B = {size}" for size in batch_sizes) + " |"
    yield "|---|---|" + "---|" * len(batch_sizes)
    for name in CASES:
        for dimension in sorted({dimension for _, _, dimension in rows}):
            found = [rows.get((name, size, dimension)) for size in batch_sizes]
            if any(found):
                yield f"| {name} | {dimension} | " + " | ".join(map(_cell, found)) + " |"
    yield ""
    yield "| compared with, in pytorch-metric-learning | |"
    yield "|---|---|"
    for name, case in CASES.items():
        yield f"| {name} | {case.peer or 'no such loss: ours alone'} |"


def _place(key: str) -> tuple[str, int, int]:
    name, batch_size, dimension = key.split("/")
    return name, int(batch_size), int(dimension)


def _ratio(row: Row, measure: str = "milliseconds") -> float:
    """The peer's time relative to ours."""
    return row["theirs"][measure] / row["ours"][measure]


def _cell(row: Row | None) -> str:
    if row is None:
        return ""
    ours = f"{row['ours']['milliseconds']:.3g} ms, {row['ours']['mebibytes']:.0f} MiB"
    if "theirs" in row:
        return f"**{_ratio(row):.2g}×** {ours} / {row['theirs']['mebibytes']:.0f} MiB"
    return f"– {ours} / {row['skipped']}" if "skipped" in row else ours
