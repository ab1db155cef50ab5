"""The tables and the headlines of the sampling benchmark."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from benchmarks.common.results import Headline, machine_line
from benchmarks.sampling.run import BATCH_SIZE, POOL, SIZES


def sections(results: Mapping[str, Any]) -> dict[str, Iterator[str]]:
    return {"sampling": _tables(results)}


def _tables(results: Mapping[str, Any]) -> Iterator[str]:
    yield machine_line(results)
    yield ""
    for name, size in SIZES.items():
        rows = [row for row in results["rows"] if row["size"] == name]
        if not rows:
            continue
        yield (
            f"{size.classes:,} classes, {size.images:,} images, batches of {BATCH_SIZE}; an epoch is to cost "
            f"less than {size.most_seconds:g} s and {size.most_megabytes:g} MB:"
        )
        yield ""
        yield "| | batches | seconds | of the processor | peak MB | MB before | too much |"
        yield "|---|---|---|---|---|---|---|"
        yield from map(_line, rows)
        yield ""


def _line(row: Mapping[str, Any]) -> str:
    size = SIZES[row["size"]]
    limits = {"s": (row["seconds"], size.most_seconds), "MB": (row["peak_megabytes"], size.most_megabytes)}
    over = [f"{name} ≥ {most:g}" for name, (found, most) in limits.items() if found >= most]
    verdict = ", ".join(over) if row["sampler"] != POOL else ""
    return (
        f"| {row['sampler']} | {row['batches']:,} | {row['seconds']:.2f} | {row['processor_seconds']:.2f} | "
        f"{row['peak_megabytes']:.0f} | {row['megabytes_before']:.0f} | {verdict} |"
    )


def headlines(results: Mapping[str, Any]) -> Iterator[Headline]:
    for name, size in SIZES.items():
        rows = [row for row in results["rows"] if row["size"] == name and row["sampler"] != POOL]
        epoch = f"an epoch of {size.images:,} images"
        slowest, largest = (max(row[key] for row in rows) for key in ("seconds", "peak_megabytes"))
        yield Headline(f"{epoch}, slowest sampler", slowest, " s", size.most_seconds)
        yield Headline(f"{epoch}, most of any sampler, whole process", largest, " MB", size.most_megabytes)
