"""The results of the losses benchmark: their file, their lines on the screen and their table in the docs."""

from __future__ import annotations

import importlib.metadata
import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from benchmarks.loss_cases import CASES
from benchmarks.measuring import Headline, machine, processor, write_between

# By "loss/B/D".
Results = dict[str, dict[str, Any]]

HEADER = (
    f"{'loss / B / D':30}{'ours ms':>24}{'theirs ms':>26}{'ratio':>8}{'processor':>11}"
    f"{'ours MiB':>10}{'theirs':>8}"
)


def setting(threads: int) -> str:
    """Machine, threads and versions, for the reader."""
    packages = ("tensorflow", "torch", "pytorch-metric-learning")
    versions = ", ".join(f"{package} {importlib.metadata.version(package)}" for package in packages)
    return f"{processor()}, {threads} threads; {versions}"


def read(path: Path, expected: str) -> Results:
    """Results of the same machine and versions; none of others."""
    found = json.loads(path.read_text()) if path.exists() else {}
    return found["results"] if found.get("setting") == expected else {}


def write(path: Path, of: str, results: Results) -> None:
    figures = [headline._asdict() for headline in headlines(results)]
    found = {"setting": of, "machine": machine(), "headlines": figures, "results": results}
    path.write_text(json.dumps(found, indent=1, sort_keys=True) + "\n")


def headlines(results: Results) -> Iterator[Headline]:
    compared = {_place(key): row for key, row in results.items() if "theirs" in row}
    if not compared:
        return
    least = min(map(ratio, compared.values()))
    yield Headline(f"least speed of {len(compared)} settings, to the peer", least, "×", at_least=1.0)
    triplets = [ratio(row) for (name, size, _), row in compared.items() if "triplet" in name and size >= 512]
    if triplets:
        yield Headline("triplets from B = 512 on, least", min(triplets), "×", at_least=3.0)


def ratio(row: Mapping[str, Any], of: str = "milliseconds") -> float:
    """How many times as long theirs takes."""
    return row["theirs"][of] / row["ours"][of]


def line(key: str, row: Mapping[str, Any]) -> str:
    ours = row["ours"]
    text = f"{key:30}{_spread(ours):>24}"
    if "theirs" in row:
        theirs, of_processor = row["theirs"], ratio(row, "processor_milliseconds")
        return (
            f"{text}{_spread(theirs):>26}{ratio(row):7.2f}x{of_processor:10.2f}x"
            f"{ours['mebibytes']:10.0f}{theirs['mebibytes']:8.0f}"
        )
    return f"{text}{row.get('skipped', ''):>26}{'':19}{ours['mebibytes']:10.0f}"


def _spread(times: Mapping[str, float]) -> str:
    return f"{times['milliseconds']:.3g} ({times['least']:.3g}..{times['most']:.3g})"


def write_table(path: Path, of: str, results: Results) -> None:
    """Replaces the generated part of docs/performance.md."""
    write_between(path, "losses", _table(of, results))


def _table(of: str, results: Results) -> Iterator[str]:
    yield f"{of}."
    yield ""
    rows = {_place(key): row for key, row in results.items()}
    batch_sizes = sorted({batch_size for _, batch_size, _ in rows})
    compared = [row for row in rows.values() if "theirs" in row]
    slower = sum(ratio(row) < 1.0 for row in compared)
    by_processor = sum(ratio(row, "processor_milliseconds") < 1.0 for row in compared)
    yield (
        f"Of {len(compared)} rows that both libraries ran, ours is slower in {slower}; "
        f"by processor time in {by_processor}."
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
        yield f"| {name} | {case.theirs or 'no such loss: ours alone'} |"


def _place(key: str) -> tuple[str, int, int]:
    name, batch_size, dimension = key.split("/")
    return name, int(batch_size), int(dimension)


def _cell(row: Mapping[str, Any] | None) -> str:
    if row is None:
        return ""
    ours = f"{row['ours']['milliseconds']:.3g} ms, {row['ours']['mebibytes']:.0f} MiB"
    if "theirs" in row:
        return f"**{ratio(row):.2g}×** {ours} / {row['theirs']['mebibytes']:.0f} MiB"
    return f"– {ours} / {row['skipped']}" if "skipped" in row else ours
