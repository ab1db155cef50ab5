"""Python examples of the documentation run as they are printed; the reference of the flags is up to date."""

from __future__ import annotations

import os
import re
import runpy
import subprocess
import sys
from pathlib import Path

import pytest

from tests import ROOT


def text_of(place: str) -> str:
    """A document, or the section of it that is named after `#`."""
    file, _, heading = place.partition("#")
    text = (ROOT / file).read_text(encoding="utf-8")
    return text.split(f"\n## {heading}\n", 1)[1].split("\n## ", 1)[0] if heading else text


@pytest.mark.parametrize(
    "place",
    [
        "README.md#Use it as a library",
        "docs/algorithm.md",
        "docs/losses.md",
        "docs/metrics.md",
        "docs/tutorial-keras.md",
        pytest.param("docs/protocols.md", marks=pytest.mark.slow),
    ],
)
def test_the_examples_run_one_after_the_other(place: str, tmp_path: Path) -> None:
    blocks = re.findall(r"```python\n(.*?)```", text_of(place), flags=re.DOTALL)
    assert blocks
    run("\n".join(blocks), tmp_path)


def run(code: str, folder: Path) -> str:
    """Runs Python code in a folder; returns what it prints."""
    environment = {**os.environ, "TF_CPP_MIN_LOG_LEVEL": "3", "PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-c", code]
    done = subprocess.run(command, env=environment, cwd=folder, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_the_scripts_have_at_most_fifteen_lines_and_ccp_improves_the_digits(tmp_path: Path) -> None:
    tutorial = "docs/tutorial-keras.md"
    script, trainer = (
        re.findall(r"```python\n(.*?)```", text_of(f"{tutorial}#{heading}"), flags=re.DOTALL)[0]
        for heading in ("CCP in fifteen lines", "The full loop")
    )
    # The examples above run the trainer.
    assert max(len([line for line in code.splitlines() if line]) for code in (script, trainer)) <= 15
    done = run(script, tmp_path)
    before, after = (float(line.split(": ")[1]) for line in done.splitlines())
    assert after > before + 0.1


def test_the_reference_of_the_flags_is_up_to_date() -> None:
    """`python docs/flags.py` writes it again."""
    page = runpy.run_path(str(ROOT / "docs" / "flags.py"))["page"]
    assert (ROOT / "docs" / "flags.md").read_text(encoding="utf-8") == page()
