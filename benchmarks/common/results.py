"""Results of the benchmarks: their files, their sections in the documentation, their command line.

`benchmarks/<name>/report.py` has two functions of the content of `benchmarks/<name>/results.json`: `sections`
gives the generated sections of the documentation by their name, and `headlines` the figures of the summary.
"""

from __future__ import annotations

import argparse
import importlib
import json
import os
import platform
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from ccp_dml import environment

FOLDER = Path(__file__).parents[1]
DOCS = FOLDER.parent / "docs"
_SAME = ("processor", "cores", "tensorflow")


class Headline(NamedTuple):
    """A figure of the summary and its aim: at most or at least a number."""

    what: str
    value: float
    unit: str
    at_most: float | None = None
    at_least: float | None = None

    @property
    def aim(self) -> str:
        """The aim in words; empty if there is none."""
        if self.at_most is not None:
            return f"at most {self.at_most:g}{self.unit}"
        return "" if self.at_least is None else f"at least {self.at_least:g}{self.unit}"

    @property
    def met(self) -> bool:
        """True if the aim is met or there is none."""
        too_large = self.at_most is not None and self.value > self.at_most
        too_small = self.at_least is not None and self.value < self.at_least
        return not (too_large or too_small)


def make_parser(doc: str) -> argparse.ArgumentParser:
    """A parser whose help is a module docstring, with the flag `--quick` of all benchmarks."""
    parser = argparse.ArgumentParser(
        description=doc, formatter_class=argparse.RawDescriptionHelpFormatter, allow_abbrev=False
    )
    parser.add_argument("--quick", action="store_true", help="measure little, and write nothing")
    return parser


def read(name: str) -> dict[str, Any]:
    """The results of a benchmark; empty if there are none."""
    file = FOLDER / name / "results.json"
    return json.loads(file.read_text(encoding="utf-8")) if file.exists() else {}


def read_of_this_machine(name: str) -> dict[str, Any]:
    """The results of a benchmark if they were measured on this machine with this TensorFlow."""
    found, here = read(name), machine()
    return found if found and all(found["machine"][key] == here[key] for key in _SAME) else {}


def publish(name: str, results: Mapping[str, Any], *, write: bool) -> None:
    """Prints the results of a benchmark and, if asked to, writes them; see `show` and `write`."""
    show(name, results)
    if write:
        write_results(name, results)


def show(name: str, results: Mapping[str, Any]) -> None:
    """Prints the generated sections of a benchmark."""
    for lines in _report(name).sections({"machine": machine(), **results}).values():
        print("\n".join(lines), flush=True)


def write_results(name: str, results: Mapping[str, Any]) -> None:
    """Writes the results of a benchmark and its documentation.

    Args:
        name: of the benchmark.
        results: the content of its file; `machine` and `headlines` are added.
    """
    found = {**results, "machine": machine()}
    found["headlines"] = [headline._asdict() for headline in _report(name).headlines(found)]
    text = json.dumps(found, indent=1) + "\n"
    (FOLDER / name / "results.json").write_text(text, encoding="utf-8")
    write_sections(name, found)


def write_sections(name: str, results: Mapping[str, Any]) -> None:
    """Writes the generated sections of a benchmark into its document."""
    report = _report(name)
    document = DOCS / getattr(report, "DOCUMENT", "performance.md")
    for section, lines in report.sections(results).items():
        text = document.read_text(encoding="utf-8")
        document.write_text(with_section(text, section, f"benchmarks.{name}", lines), encoding="utf-8")


def with_section(text: str, section: str, maker: str, lines: Iterable[str]) -> str:
    """A document with a generated section replaced.

    Args:
        text: the document; comments in it mark where the section begins and ends.
        section: name of the section.
        maker: the package that makes it.
        lines: the new lines.

    Raises:
        ValueError: if there is no such section.
    """
    begin, end = f"<!-- {section}: made by {maker} -->", f"<!-- end of {section} -->"
    head, found, rest = text.partition(begin)
    _, ended, tail = rest.partition(end)
    if not found or not ended:
        raise ValueError(f"the document has no section {begin} ... {end}")
    return "\n".join([head + begin, "", *lines, "", end + tail])


def _report(name: str) -> Any:
    return importlib.import_module(f"benchmarks.{name}.report")


def machine() -> dict[str, Any]:
    """The machine: processor, cores, load, versions and revision."""
    return {
        "processor": processor(),
        "cores": os.cpu_count(),
        "load_average": [round(number, 1) for number in os.getloadavg()],
        **environment.versions(),
        **environment.revision(),
    }


def processor() -> str:
    """The name of the processor."""
    for line in Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines():
        if line.startswith("model name"):
            return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()


def machine_line(results: Mapping[str, Any]) -> str:
    """The machine of the results in a sentence."""
    found = results["machine"]
    load = f"load {found['load_average'][0]:g}"
    return f"{found['processor']}, {found['cores']} cores, {load}; TensorFlow {found['tensorflow']}."
