"""The table of figures in docs/reliability.md."""

from __future__ import annotations

import base64
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest

from tests.reliability import figures

STATISTICS = base64.b64encode(
    b"- during generate phase:\n  - 40 passing examples, 0 failing examples\n- reuse: 2 passing examples"
).decode()
REPORT = f"""<testsuites><testsuite>
<properties>
<property name="hypothesis-statistics-tests/test_x.py::a" value="{STATISTICS}" />
<property name="hypothesis-statistics-tests/test_y.py::a" value="{STATISTICS}" />
</properties>
<testcase classname="tests.test_x" name="a">
  <properties><property name="kills" value="14" /></properties>
</testcase>
<testcase classname="tests.test_x" name="b[1.5-x]">
  <properties><property name="kills" value="3" /></properties>
</testcase>
<testcase classname="tests.test_x" name="c"><skipped message="" /></testcase>
<testcase classname="tests.test_x.Group" name="d"><failure message="" /></testcase>
<testcase classname="tests.test_y" name="a">
  <properties><property name="kills" value="100" /></properties>
</testcase>
</testsuite></testsuites>"""
PASSED = ("tests/test_x.py::a", "tests/test_x.py::b[1.5-x]")
SKIPPED, FAILED, ABSENT = "tests/test_x.py::c", "tests/test_x.py::Group::d", "tests/test_x.py::b[2.5-x]"
# Tests of several rows in one file.
CODE = """
import pytest

@pytest.mark.parametrize("size", [1, 2.5, "a::b[c]"])
def test_kept(record_property, size):
    record_property("kills", 3)

def test_other(record_property):
    record_property("kills", 100)

def test_broken(record_property):
    record_property("kills", 7)
    assert False
"""


def test_counts_are_added_up():
    found = figures.count(REPORT, [*PASSED, SKIPPED, FAILED, ABSENT])
    assert +found == {
        "kills": 17,
        "examples": 42,
        "passed": 2,
        "skipped": 1,
        "failure": 1,
        "missing": 1,
    }


@pytest.mark.parametrize("test", [SKIPPED, FAILED, ABSENT])
def test_a_row_is_replaced_only_if_all_of_its_tests_have_passed(test):
    assert figures.shortfall("kills", figures.count(REPORT, PASSED)) is None
    problem = figures.shortfall("kills", figures.count(REPORT, [*PASSED, test]))
    assert str(problem).startswith("1 of 3 tests: ")


def test_a_row_without_counts_is_not_replaced():
    problem = figures.shortfall("images", Counter(passed=5, kills=3))
    assert "counted nothing" in str(problem)


def test_rows_are_replaced_and_keep_their_order():
    text = f"before\n{figures.BEGIN}{figures.END}after\n"
    found = figures.count(REPORT, PASSED)
    for name in ("images", "kills", "images"):
        text = figures.with_lines(text, {name: figures.line(name, found)})
    rows = text.removeprefix(f"before\n{figures.BEGIN}").removesuffix(f"{figures.END}after\n")
    header, _, kills, images = rows.splitlines()
    assert header.startswith("| survived |")
    assert kills.startswith("| 17 | kills")
    assert images.startswith("| 42 | fuzzed images")


def test_the_document_has_the_table():
    text = figures.DOCUMENT.read_text(encoding="utf-8")
    assert figures.with_lines(text, {}).count(figures.HEADER) == 1


@pytest.fixture
def rows(tmp_path, monkeypatch) -> Path:
    """A project with one file of tests and three rows, one of fuzz tests; returns the document."""
    (tmp_path / "tests").mkdir()
    (tmp_path / "tests" / "test_small.py").write_text(CODE, encoding="utf-8")
    (tmp_path / "pyproject.toml").write_text("[tool.pytest.ini_options]\naddopts = '-q'\n", encoding="utf-8")
    document = tmp_path / "document.md"
    document.write_text(f"{figures.BEGIN}{figures.END}", encoding="utf-8")
    monkeypatch.setattr(figures, "ROOT", tmp_path)
    monkeypatch.setattr(figures, "DOCUMENT", document)
    small = {
        "kept": figures.Row("tests/test_small.py -k 'kept or other'", "kills", "kills"),
        "broken": figures.Row("tests/test_small.py -k broken", "kills", "kills at a place"),
        "fuzzed": figures.Row("tests/test_small.py -k other", "examples", "requests"),
    }
    monkeypatch.setattr(figures, "ROWS", small)
    return document


def test_the_report_of_a_run_in_several_processes_fills_the_rows_of_its_tests(rows, tmp_path, capfd):
    report = tmp_path / "report.xml"
    command = [sys.executable, "-m", "pytest", "-n", "2", "--dist", "loadfile", f"--junitxml={report}"]
    assert subprocess.run(command, cwd=tmp_path, check=False).returncode == 1
    capfd.readouterr()
    assert figures.main([f"--report={report}"]) == 1
    filled = "| 109 | kills | 4 | `python -m tests.reliability.figures kept` |\n"
    expected = f"{figures.BEGIN}{figures.HEADER}{filled}{figures.END}"
    assert rows.read_text(encoding="utf-8") == expected
    broken, fuzzed = capfd.readouterr().err.splitlines()
    assert broken == "broken: not replaced: 1 of 1 tests: failure"
    assert fuzzed.startswith("fuzzed: not replaced: its tests have counted nothing")

    assert figures.main([f"--report={report}", "kept"]) == 0
    assert figures.main([f"--report={report}", "fuzzed"]) == 1
    assert rows.read_text(encoding="utf-8") == expected
