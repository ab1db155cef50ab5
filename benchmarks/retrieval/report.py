"""The table and the headlines of the retrieval benchmark."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from benchmarks.common.results import Headline, machine_line
from benchmarks.retrieval.cases import CASES
from benchmarks.retrieval.run import ROWS


def sections(results: Mapping[str, Any]) -> dict[str, Iterator[str]]:
    return {"retrieval": _table(results)}


def _table(results: Mapping[str, Any]) -> Iterator[str]:
    """Cases by rows; ratios of this library are to the product, those of the others to this library."""
    yield machine_line(results)
    yield ""
    yield "| | " + " | ".join(ROWS) + " | metrics differ by |"
    yield "|---" * (len(ROWS) + 2) + "|"
    for name, case in results["cases"].items():
        cells = [_cell(row, case["rows"]) for row in ROWS]
        yield f"| {CASES[name].title} | " + " | ".join(cells) + f" | {case['difference']:.1g} |"


def _cell(name: str, rows: Mapping[str, Any]) -> str:
    if name not in rows:
        return ""
    row = rows[name]
    seconds, memory = f"{row['seconds']['median']:.2f} s", f"{row['megabytes']:.0f} MB"
    if name == "product":
        return seconds
    ratio = row["to_first_row"]
    if name.startswith("ours"):
        return f"**{ratio['elapsed']:.2f}×** ({ratio['processor']:.2f}) {seconds}, {memory}"
    ours = rows["ours"]["to_first_row"]
    elapsed, processor = (ratio[key] / ours[key] for key in ("elapsed", "processor"))
    return f"**{elapsed:.1f}×** ({processor:.1f}) {seconds}, {memory}"


def headlines(results: Mapping[str, Any]) -> Iterator[Headline]:
    """The aims for as many images as Stanford Online Products has."""
    if "sop" not in results["cases"]:
        return
    rows, title = results["cases"]["sop"]["rows"], CASES["sop"].title
    ours, recall = rows["ours"], rows["ours, R@1000"]
    yield Headline(f"{title}, to the bare product", ours["to_first_row"]["elapsed"], "×", at_most=1.3)
    yield Headline(f"{title}, R@1000 too", recall["to_first_row"]["elapsed"], "×", at_most=1.6)
    yield Headline(f"{title}, memory above the embeddings", ours["megabytes"], " MB", at_most=1000.0)
    for name, least in (("original", 3.0), ("PML + FAISS", 8.0)):
        ratio = rows[name]["to_first_row"]["elapsed"] / ours["to_first_row"]["elapsed"]
        yield Headline(f"{title}, speed to {name}", ratio, "×", at_least=least)
