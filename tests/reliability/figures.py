"""Writes the table of figures in docs/reliability.md.

    python -m tests.reliability.figures [ROW ...]    # all rows by default

Each row is a selection of tests. The tests count their kills, faults and so on (`record_property`); for fuzz
tests hypothesis counts the examples. The tests are run, or their outcome is taken from a report (`--report`),
which may contain other tests too. A row is replaced only if all of its tests have passed.
"""

from __future__ import annotations

import argparse
import base64
import re
import subprocess
import sys
import tempfile
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from xml.etree import ElementTree

from tests import ROOT

DOCUMENT = ROOT / "docs" / "reliability.md"
BEGIN, END = "<!-- figures -->\n", "<!-- end of figures -->\n"
HEADER = "| survived | what | tests | command |\n|---|---|---|---|\n"
COMMAND = "python -m tests.reliability.figures"
# The beginning of the property in which hypothesis writes its counts, and our name for them.
_STATISTICS = "hypothesis-statistics-"
_EXAMPLES = "examples"
_PASSING = re.compile(r"(\d+) passing(?: examples)?")
_OUTCOMES = ("passed", "failure", "error", "skipped", "missing")
_PYTEST = (sys.executable, "-m", "pytest", "-n", "0")


@dataclass(frozen=True)
class Row:
    """A row of the table: tests as arguments for pytest, the property that they count, and its meaning."""

    tests: str
    counted: str
    what: str


ROWS = {
    "kills": Row(
        "tests/reliability/test_kills.py -k every_place",
        "kills",
        "kills (SIGKILL) of runs with every loss and wrapper, at places and random moments",
    ),
    "command": Row(
        "tests/reliability/test_kills.py -k command",
        "kills",
        "kills of `train.py` in its own process, at selected places and random moments",
    ),
    "interruptions": Row(
        "tests/reliability/test_interruption.py",
        "interruptions",
        "SIGINT and SIGTERM at every stage of a run",
    ),
    "world": Row(
        "tests/reliability/test_bad_world.py",
        "faults",
        "full disks, read-only or removed folders and damaged data during a run",
    ),
    "flags": Row(
        "tests/commands/test_bad_flags.py", "bad flags", "bad command lines: exit code 2 and one line"
    ),
    "images": Row(
        "tests/datasets/test_bad_images.py -k fuzz",
        _EXAMPLES,
        "fuzzed images and manifests: read correctly, or an error that names the file",
    ),
    "requests": Row(
        "tests/serving/test_hostile_requests.py -k 'any_bytes or damaged'",
        _EXAMPLES,
        "fuzzed requests to an exported model: an embedding, or an error of this request",
    ),
}


def tests_of(name: str) -> list[str]:
    """The names of the tests of a row, as pytest collects them."""
    done = subprocess.run(
        [*_PYTEST, "--collect-only", *_arguments(name)], cwd=ROOT, capture_output=True, text=True, check=True
    )
    return [text for text in done.stdout.splitlines() if "::" in text]


def count(report: str, tests: Iterable[str]) -> Counter[str]:
    """Adds up the counts of tests; also counts the tests that passed, failed, were skipped or are missing.

    Args:
        report: XML report of pytest on these tests, and perhaps on others.
        tests: names of the tests.
    """
    top = ElementTree.fromstring(report)
    missing = {_address(test): test for test in tests}
    statistics = {f"{_STATISTICS}{test}" for test in missing.values()}
    found: Counter[str] = Counter()
    cases = [case for case in top.iter("testcase") if _place(case) in missing]
    for case in cases:
        outcomes = [child.tag for child in case if child.tag in ("failure", "error", "skipped")]
        found[outcomes[0] if outcomes else "passed"] += 1
        for entry in case.iter("property"):
            found[entry.get("name", "")] += int(entry.get("value", ""))
    for entry in top.iter("property"):
        if entry.get("name") in statistics:
            text = base64.b64decode(entry.get("value", "")).decode("utf-8")
            found[_EXAMPLES] += sum(int(count) for count in _PASSING.findall(text))
    found["missing"] = len(missing.keys() - {_place(case) for case in cases})
    return found


def _address(test: str) -> tuple[str, str]:
    """The place of a test in the report: module (and class), and function with its parameters."""
    path, bracket, parameters = test.partition("[")
    file, *names = path.split("::")
    module = file.removesuffix(".py").replace("/", ".")
    return ".".join((module, *names[:-1])), names[-1] + bracket + parameters


def _place(case: ElementTree.Element) -> tuple[str, str]:
    return case.get("classname", ""), case.get("name", "")


def shortfall(name: str, found: Counter[str]) -> str | None:
    """The reason to keep a row as it is; None if it may be replaced."""
    total = sum(found[outcome] for outcome in _OUTCOMES)
    for outcome in _OUTCOMES[1:]:
        if found[outcome]:
            return f"{found[outcome]} of {total} tests: {outcome}"
    if not found[ROWS[name].counted]:
        return "its tests have counted nothing (hypothesis counts only in a single process)"
    return None


def line(name: str, found: Counter[str]) -> str:
    """A row of the table as text."""
    row = ROWS[name]
    return f"| {found[row.counted]:,} | {row.what} | {found['passed']:,} | `{COMMAND} {name}` |\n"


def with_lines(text: str, lines: dict[str, str]) -> str:
    """The document with some rows of its table replaced, and rows without figures left out."""
    before, rest = text.split(BEGIN)
    table, after = rest.split(END)
    rows_there = re.finditer(rf"^\| .* `{COMMAND} (\w+)` \|\n", table, re.MULTILINE)
    known = {match[1]: match[0] for match in rows_there} | lines
    rows = "".join(known[name] for name in ROWS if name in known)
    return f"{before}{BEGIN}{HEADER}{rows}{END}{after}"


def run(name: str) -> str:
    """Runs the tests of a row in one process; returns the report of pytest."""
    with tempfile.TemporaryDirectory() as folder:
        report = Path(folder) / "report.xml"
        subprocess.run([*_PYTEST, f"--junitxml={report}", *_arguments(name)], cwd=ROOT, check=False)
        return report.read_text(encoding="utf-8")


def _arguments(name: str) -> list[str]:
    return [argument.strip("'") for argument in re.findall(r"'[^']*'|\S+", ROWS[name].tests)]


def main(arguments: Sequence[str] | None = None) -> int:
    """Writes the rows; returns 1 if a row could not be replaced.

    Rows of fuzz tests may stay if a report was given and no row was asked for.
    """
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("rows", nargs="*", metavar="ROW", help=f"any of {', '.join(ROWS)}")
    parser.add_argument(
        "--report",
        type=Path,
        help="file that pytest --junitxml=... has written, of these tests and perhaps others",
    )
    options = parser.parse_args(arguments)
    unknown = set(options.rows) - set(ROWS)
    if unknown:
        parser.error(f"{', '.join(sorted(unknown))}: expected any of {', '.join(ROWS)}")
    report = options.report.read_text(encoding="utf-8") if options.report else None
    all_filled = True
    for name in options.rows or ROWS:
        found = count(report or run(name), tests_of(name))
        problem = shortfall(name, found)
        if problem is None:
            text = DOCUMENT.read_text(encoding="utf-8")
            DOCUMENT.write_text(with_lines(text, {name: line(name, found)}), encoding="utf-8")
            continue
        print(f"{name}: not replaced: {problem}", file=sys.stderr)
        uncounted = report is not None and not options.rows and ROWS[name].counted == _EXAMPLES
        all_filled = all_filled and uncounted
    return 0 if all_filled else 1


if __name__ == "__main__":
    sys.exit(main())
