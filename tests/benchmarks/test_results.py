"""The documentation is made from the committed results."""

from __future__ import annotations

import importlib

import pytest

from benchmarks.common import results, summary

MAKEFILE = results.FOLDER.parent / "Makefile"


def test_every_benchmark_of_the_makefile_has_results():
    line = next(text for text in MAKEFILE.read_text().splitlines() if text.startswith("BENCHMARKS :="))
    assert sorted(line.split(":=")[1].split()) == summary.names()


@pytest.mark.parametrize("name", summary.names())
def test_the_sections_of_the_documentation_are_up_to_date(name):
    report = importlib.import_module(f"benchmarks.{name}.report")
    text = (results.DOCS / getattr(report, "DOCUMENT", "performance.md")).read_text(encoding="utf-8")
    for section, lines in report.sections(results.read(name)).items():
        assert results.with_section(text, section, f"benchmarks.{name}", lines) == text, "make bench"


@pytest.mark.parametrize("name", summary.names())
def test_the_headlines_follow_from_the_results(name):
    found = results.read(name)
    report = importlib.import_module(f"benchmarks.{name}.report")
    expected = [headline._asdict() for headline in report.headlines(found)]
    assert found.get("headlines", []) == expected


def test_the_summary_is_up_to_date():
    text = summary.DOCUMENT.read_text(encoding="utf-8")
    assert results.with_section(text, "summary", "benchmarks.common.summary", summary.table()) == text


def test_a_missing_section_is_an_error():
    with pytest.raises(ValueError, match="no section <!-- a: made by b -->"):
        results.with_section("text", "a", "b", [])


@pytest.mark.parametrize(
    "headline, aim, met",
    [
        (results.Headline("a", 2.0, "×", at_most=1.5), "at most 1.5×", False),
        (results.Headline("a", 2.0, " s", at_least=1.5), "at least 1.5 s", True),
        (results.Headline("a", 2.0, " s"), "", True),
    ],
)
def test_a_headline_says_whether_its_aim_is_met(headline, aim, met):
    assert (headline.aim, headline.met) == (aim, met)
