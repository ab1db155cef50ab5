"""The figures that every benchmark is judged by, in one table.

    python -m benchmarks.summary    # measures nothing: reads what the benchmarks have written

Prints the table, and writes it to results.json, with the machine of each benchmark, and into the README.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from typing import Any

from benchmarks.measuring import FOLDER, Headline, write_between

README = FOLDER.parent / "README.md"
RESULTS = FOLDER / "results.json"


def main() -> None:
    found = {
        name: {"machine": results["machine"], "headlines": results["headlines"]}
        for name, results in benchmarks()
        if results.get("headlines")
    }
    RESULTS.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")
    lines = list(table(found))
    print("\n".join(lines))
    write_between(README, "summary", lines)


def benchmarks() -> Iterator[tuple[str, Mapping[str, Any]]]:
    """Names and results of the benchmarks that were run."""
    for file in sorted(FOLDER.glob("*.json")):
        if file != RESULTS:
            yield file.stem, json.loads(file.read_text(encoding="utf-8"))


def table(found: Mapping[str, Any]) -> Iterator[str]:
    yield "| benchmark | measured | aim | |"
    yield "|---|---|---|---|"
    for name, results in found.items():
        for figures in results["headlines"]:
            headline = Headline(**figures)
            value = f"{headline.value:.3g}{headline.unit}"
            verdict = "" if aim(headline) == "" else "met" if headline.met else "**not met**"
            yield f"| `{name}`: {headline.what} | {value} | {aim(headline)} | {verdict} |"


def aim(headline: Headline) -> str:
    if headline.at_most is not None:
        return f"at most {headline.at_most:g}{headline.unit}"
    if headline.at_least is not None:
        return f"at least {headline.at_least:g}{headline.unit}"
    return ""


if __name__ == "__main__":
    main()
