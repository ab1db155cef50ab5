"""What benchmarks.retrieval found, for the terminal and for docs/performance.md."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from benchmarks.measuring import Headline
from benchmarks.retrieval_cases import CASES, Case
from benchmarks.retrieval_worker import ROWS


def lines(case: Case, result: Mapping[str, Any]) -> Iterator[str]:
    """A case, row by row."""
    width = max(map(len, ROWS))
    first = next(iter(result["rows"]))
    yield f"{case.title}; ratios are to {first}; metrics differ by at most {result['difference']:.1g}"
    yield f"{'':{width}}  median s   min s   max s  ratio  processor s  ratio      MB     P@1     P@R   MAP@R"
    for name, row in result["rows"].items():
        seconds, ratio = row["seconds"], row["to_first_row"]
        values = "".join(f"  {row['values'][key]:.4f}" for key in ("P@1", "P@R", "MAP@R") if row["values"])
        yield (
            f"{name:{width}}  {seconds['median']:8.2f}  {seconds['least']:6.2f}  {seconds['most']:6.2f}  "
            f"{ratio['elapsed']:5.2f}  {seconds['processor']:11.2f}  {ratio['processor']:5.2f}  "
            f"{row['megabytes']:6.0f}{values}"
        )


def table(results: Mapping[str, Any]) -> Iterator[str]:
    """All cases as a Markdown table; ratios of ours are to the product, of the others to ours."""
    yield "| | " + " | ".join(ROWS) + " | metrics differ by |"
    yield "|---" * (len(ROWS) + 2) + "|"
    for name, result in results.items():
        cells = [_cell(row, result["rows"]) for row in ROWS]
        yield f"| {CASES[name].title} | " + " | ".join(cells) + f" | {result['difference']:.1g} |"


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
    floor = rows["ours"]["to_first_row"]
    elapsed, processor = (ratio[key] / floor[key] for key in ("elapsed", "processor"))
    return f"**{elapsed:.1f}×** ({processor:.1f}) {seconds}, {memory}"


def headlines(results: Mapping[str, Any]) -> Iterator[Headline]:
    """The aims for as many images as Stanford Online Products has."""
    if "sop" not in results:
        return
    rows, title = results["sop"]["rows"], CASES["sop"].title
    ours, recall = rows["ours"], rows["ours, R@1000"]
    yield Headline(f"{title}, to the bare product", ours["to_first_row"]["elapsed"], "×", at_most=1.3)
    yield Headline(f"{title}, R@1000 too", recall["to_first_row"]["elapsed"], "×", at_most=1.6)
    yield Headline(f"{title}, memory above the embeddings", ours["megabytes"], " MB", at_most=1000.0)
    for name, least in (("original", 3.0), ("PML + FAISS", 8.0)):
        ratio = rows[name]["to_first_row"]["elapsed"] / ours["to_first_row"]["elapsed"]
        yield Headline(f"{title}, speed to {name}", ratio, "×", at_least=least)
