"""Makes the tables in the documentation anew from the results of all benchmarks; measures nothing.

python -m benchmarks.common.summary

The table of the headlines is printed and written into docs/performance.md.
"""

from __future__ import annotations

from collections.abc import Iterator

from benchmarks.common.results import DOCS, FOLDER, Headline, read, with_section, write_sections

DOCUMENT = DOCS / "performance.md"


def main() -> None:
    for name in names():
        write_sections(name, read(name))
    lines = list(table())
    print("\n".join(lines))
    text = DOCUMENT.read_text(encoding="utf-8")
    DOCUMENT.write_text(with_section(text, "summary", "benchmarks.common.summary", lines), encoding="utf-8")


def names() -> list[str]:
    """The benchmarks that have results."""
    return sorted(file.parent.name for file in FOLDER.glob("*/results.json"))


def table() -> Iterator[str]:
    """The headlines of all benchmarks."""
    yield "| benchmark | measured | aim | |"
    yield "|---|---|---|---|"
    for name in names():
        for figures in read(name).get("headlines", []):
            headline = Headline(**figures)
            value = f"{headline.value:.3g}{headline.unit}"
            verdict = "" if not headline.aim else "met" if headline.met else "**not met**"
            yield f"| `{name}`: {headline.what} | {value} | {headline.aim} | {verdict} |"


if __name__ == "__main__":
    main()
