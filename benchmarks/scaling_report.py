"""The results of the scaling benchmark: their lines on the screen and their tables in the docs."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from benchmarks.measuring import Headline
from benchmarks.scaling_memory import size

# By "loss/C/kind/R".
Results = dict[str, dict[str, Any]]

HEADER = f"{'loss / C / kind / R':36}{'ms (least..most)':>28}{'processor ms':>14}{'MB':>8}{'handed over':>14}"


def line(key: str, row: Mapping[str, Any]) -> str:
    spread = f"{row['milliseconds']:.3g} ({row['least']:.3g}..{row['most']:.3g})"
    handed_over = size(row["bytes_handed_over"])
    memory = f"{row['megabytes']:.0f}" if "megabytes" in row else ""
    return f"{key:36}{spread:>28}{row['processor_milliseconds']:14.3g}{memory:>8}{handed_over:>14}"


def write_part(path: Path, name: str, lines: Iterable[str]) -> None:
    """Replaces a generated part of a document."""
    begin, end = f"<!-- {name}: made by benchmarks.scaling -->", f"<!-- end of {name} -->"
    head, rest = path.read_text(encoding="utf-8").split(begin)
    _, tail = rest.split(end)
    path.write_text("\n".join([head + begin, "", *lines, "", end + tail]), encoding="utf-8")


def headlines(found: Mapping[str, Any]) -> Iterator[Headline]:
    """Of all parts that were measured."""
    steps = found.get("replicas", {}).get("results", {})
    alone = steps.get("whole/1")
    for key in ("whole/2", "sharded/2"):
        if alone and key in steps:
            ratio = steps[key]["processor_milliseconds"] / alone["processor_milliseconds"]
            what = f"a step on 2 replicas of one CPU, {key.split('/')[0]} proxies, to one device, processor"
            yield Headline(what, ratio, "×")
    rows = found.get("sharded", {}).get("results", {})
    places = [_place(key) for key in rows]
    for loss, classes, kind, count in places:
        largest = max(other for name, other, _, _ in places if name == loss)
        if (kind, classes, count) == ("sharded", largest, 2) and f"{loss}/{classes}/whole/1" in rows:
            ratio = _ratio(rows[f"{loss}/{classes}/sharded/2"], rows[f"{loss}/{classes}/whole/1"])
            yield Headline(
                f"{loss} of {classes:,} sharded classes on 2 replicas, to one, processor", ratio, "×"
            )


def replicas_table(of: str, results: Results) -> Iterator[str]:
    """The table of the training steps."""
    yield f"{of}."
    yield ""
    yield "| replicas | proxies | ms per step | of the processor | images per second | handed over |"
    yield "|---:|---|---:|---:|---:|---:|"
    alone = results["whole/1"]
    for key, row in sorted(results.items(), key=lambda item: item[0].split("/")[::-1]):
        kind, count = key.split("/")
        of_processor = f"{row['processor_milliseconds']:.3g} ({_ratio(row, alone):.2f}×)"
        speed, handed_over = f"{row['images_per_second']:.3g}", size(row["bytes_handed_over"])
        yield f"| {count} | {kind} | {row['milliseconds']:.3g} | {of_processor} | {speed} | {handed_over} |"


def _ratio(row: Mapping[str, Any], alone: Mapping[str, Any]) -> float:
    return row["processor_milliseconds"] / alone["processor_milliseconds"]


def sharded_table(of: str, results: Results) -> Iterator[str]:
    """The table of what was measured."""
    yield f"{of}."
    yield ""
    rows = {_place(key): row for key, row in results.items()}
    columns = sorted({(kind == "sharded", replicas) for _, _, kind, replicas in rows})
    titles = [f"{'sharded' if sharded else 'whole'}, R = {replicas}" for sharded, replicas in columns]
    yield "| loss | C | " + " | ".join(titles) + " | handed over |"
    yield "|---|---:|" + "---:|" * (len(titles) + 1)
    for loss, classes in sorted({(loss, classes) for loss, classes, _, _ in rows}):
        found = [
            rows.get((loss, classes, "sharded" if sharded else "whole", replicas))
            for sharded, replicas in columns
        ]
        alone = rows.get((loss, classes, "whole", 1))
        handed_over = {row["bytes_handed_over"] for row in found if row and row["bytes_handed_over"]}
        cells = " | ".join(_cell(row, alone) for row in found)
        yield f"| {loss} | {classes:,} | {cells} | {' '.join(map(size, sorted(handed_over)))} |"


def _place(key: str) -> tuple[str, int, str, int]:
    loss, classes, kind, replicas = key.split("/")
    return loss, int(classes), kind, int(replicas)


def _cell(row: Mapping[str, Any] | None, alone: Mapping[str, Any] | None) -> str:
    if row is None:
        return ""
    text = f"{row['milliseconds']:.3g} ms, {row['processor_milliseconds']:.3g} ms, {row['megabytes']:.0f} MB"
    if alone is None or row is alone:
        return text
    return f"**{_ratio(row, alone):.2g}×** {text}"
