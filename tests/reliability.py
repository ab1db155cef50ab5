"""Writes the figures of docs/reliability.md: `python -m tests.reliability [ROW ...]`, by default all rows.

Each row is a selection of tests. What they have survived is counted by the tests themselves
(`record_property`) or, of fuzz tests, by hypothesis; a row is replaced only if all of its tests pass.
"""

from __future__ import annotations

import argparse
import base64
import re
import subprocess
import sys
import tempfile
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from xml.etree import ElementTree

ROOT = Path(__file__).parents[1]
DOCUMENT = ROOT / "docs" / "reliability.md"
BEGIN, END = "<!-- figures -->\n", "<!-- end of figures -->\n"
HEADER = "| survived | what | tests | command |\n|---|---|---|---|\n"
COMMAND = "python -m tests.reliability"
_EXAMPLES = re.compile(r"(\d+) passing(?: examples)?")


@dataclass(frozen=True)
class Row:
    """A selection of tests: its arguments for pytest, the property that they count, and what that is."""

    tests: str
    counted: str
    what: str


ROWS = {
    "kills": Row(
        "tests/test_kills.py -k every_place",
        "kills",
        "kills (SIGKILL) of runs with every loss and wrapper, at places and random moments",
    ),
    "command": Row(
        "tests/test_kills.py -k command",
        "kills",
        "kills of the command itself, at places of each mechanism and at random moments",
    ),
    "interruptions": Row(
        "tests/test_interruption.py", "interruptions", "SIGINT and SIGTERM, wherever a run is"
    ),
    "world": Row(
        "tests/test_bad_world.py",
        "faults",
        "full disks, folders that are read-only or gone, in a run that is going on",
    ),
    "flags": Row("tests/test_bad_flags.py", "bad flags", "bad command lines: exit code 2, one line"),
    "images": Row(
        "tests/datasets/test_bad_images.py -k fuzz",
        "examples",
        "images and manifests, fuzzed: an error that names the file, or what it holds",
    ),
    "requests": Row(
        "tests/serving/test_hostile_requests.py -k 'any_bytes or damaged'",
        "examples",
        "requests to an exported model, fuzzed: an error for that request, or an embedding",
    ),
}


def figures(report: str) -> Counter[str]:
    """What tests have counted, and how many passed, failed and were skipped, by pytest's report in XML."""
    found: Counter[str] = Counter()
    top = ElementTree.fromstring(report)
    for case in top.iter("testcase"):
        outcomes = [child.tag for child in case if child.tag in ("failure", "error", "skipped")]
        found[outcomes[0] if outcomes else "passed"] += 1
    for entry in top.iter("property"):
        name, value = entry.get("name", ""), entry.get("value", "")
        if name.startswith("hypothesis-statistics-"):
            statistics = base64.b64decode(value).decode("utf-8")
            found["examples"] += sum(int(count) for count in _EXAMPLES.findall(statistics))
        else:
            found[name] += int(value)
    return found


def line(name: str, found: Counter[str]) -> str:
    """The row of the table."""
    row = ROWS[name]
    return f"| {found[row.counted]:,} | {row.what} | {found['passed']:,} | `{COMMAND} {name}` |\n"


def with_lines(text: str, lines: dict[str, str]) -> str:
    """The document with some rows of its table replaced; those of which nothing is known stay away."""
    before, rest = text.split(BEGIN)
    table, after = rest.split(END)
    rows_there = re.finditer(rf"^\| .* `{COMMAND} (\w+)` \|\n", table, re.MULTILINE)
    known = {match[1]: match[0] for match in rows_there} | lines
    rows = "".join(known[name] for name in ROWS if name in known)
    return f"{before}{BEGIN}{HEADER}{rows}{END}{after}"


def measure(name: str) -> Counter[str]:
    """Runs the tests of a row; in one process, as hypothesis counts nothing in several."""
    with tempfile.TemporaryDirectory() as folder:
        report = Path(folder) / "report.xml"
        command = [sys.executable, "-m", "pytest", "-n", "0", f"--junitxml={report}"]
        arguments = [argument.strip("'") for argument in re.findall(r"'[^']*'|\S+", ROWS[name].tests)]
        subprocess.run([*command, *arguments], cwd=ROOT, check=False)
        return figures(report.read_text(encoding="utf-8"))


def main() -> int:
    """Returns 1 if a test has failed or was skipped; then its row stays as it was."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("rows", nargs="*", metavar="ROW", help=f"any of {', '.join(ROWS)}")
    parser.add_argument(
        "--report", type=Path, help="of one row: what pytest --junitxml=... has written before"
    )
    options = parser.parse_args()
    names = options.rows or list(ROWS)
    if options.report and len(names) > 1:
        parser.error("--report: expected it with one row")
    unknown = set(names) - set(ROWS)
    if unknown:
        parser.error(f"{', '.join(sorted(unknown))}: expected any of {', '.join(ROWS)}")
    incomplete = []
    for name in names:
        found = figures(options.report.read_text(encoding="utf-8")) if options.report else measure(name)
        if not found["passed"] or found["failure"] or found["error"] or found["skipped"]:
            incomplete.append(name)
            continue
        text = DOCUMENT.read_text(encoding="utf-8")
        DOCUMENT.write_text(with_lines(text, {name: line(name, found)}), encoding="utf-8")
    for name in incomplete:
        print(f"{name}: tests failed or were skipped; its row stays as it was", file=sys.stderr)
    return 1 if incomplete else 0


if __name__ == "__main__":
    sys.exit(main())
