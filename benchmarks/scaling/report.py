"""The tables and the headlines of the scaling benchmark."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from benchmarks.common.results import Headline
from benchmarks.scaling.formulas import memory_table, size, traffic_table

DOCUMENT = "scaling.md"
# Rows by "kind/R" or by "loss/C/kind/R".
Rows = Mapping[str, Mapping[str, Any]]


def sections(results: Mapping[str, Any]) -> dict[str, Iterable[str]]:
    """The measured sections that have results, and those that follow from formulas."""
    found: dict[str, Iterable[str]] = {"memory": memory_table(), "traffic": traffic_table()}
    if "replicas" in results:
        found["replicas"] = replicas_table(**results["replicas"])
    if "sharded" in results:
        found["sharded"] = sharded_table(**results["sharded"])
    return found


def headlines(found: Mapping[str, Any]) -> Iterator[Headline]:
    """The headlines of the sections that have results."""
    steps = found.get("replicas", {}).get("results", {})
    for key in ("whole/2", "sharded/2"):
        if "whole/1" in steps and key in steps:
            ratio = _ratio(steps[key], steps["whole/1"])
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


def replicas_table(setting: str, results: Rows) -> Iterator[str]:
    """The table of the training steps."""
    yield f"{setting}."
    yield ""
    yield "| replicas | proxies | ms per step | of the processor | images per second | handed over |"
    yield "|---:|---|---:|---:|---:|---:|"
    baseline = results["whole/1"]
    for key, row in sorted(results.items(), key=lambda item: item[0].split("/")[::-1]):
        kind, count = key.split("/")
        processor = f"{row['processor_milliseconds']:.3g} ({_ratio(row, baseline):.2f}×)"
        speed, handed_over = f"{row['images_per_second']:.3g}", size(row["bytes_handed_over"])
        yield f"| {count} | {kind} | {row['milliseconds']:.3g} | {processor} | {speed} | {handed_over} |"


def _ratio(row: Mapping[str, Any], baseline: Mapping[str, Any]) -> float:
    return row["processor_milliseconds"] / baseline["processor_milliseconds"]


def sharded_table(setting: str, results: Rows) -> Iterator[str]:
    """The table of the proxy losses."""
    yield f"{setting}."
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
        baseline = rows.get((loss, classes, "whole", 1))
        handed_over = {row["bytes_handed_over"] for row in found if row and row["bytes_handed_over"]}
        cells = " | ".join(_cell(row, baseline) for row in found)
        yield f"| {loss} | {classes:,} | {cells} | {' '.join(map(size, sorted(handed_over)))} |"


def _place(key: str) -> tuple[str, int, str, int]:
    loss, classes, kind, replicas = key.split("/")
    return loss, int(classes), kind, int(replicas)


def _cell(row: Mapping[str, Any] | None, baseline: Mapping[str, Any] | None) -> str:
    if row is None:
        return ""
    text = f"{row['milliseconds']:.3g} ms, {row['processor_milliseconds']:.3g} ms, {row['megabytes']:.0f} MB"
    if baseline is None or row is baseline:
        return text
    return f"**{_ratio(row, baseline):.2g}×** {text}"
