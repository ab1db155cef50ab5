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
    environment = {**os.environ, "TF_CPP_MIN_LOG_LEVEL": "3", "PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-c", "\n".join(blocks)]
    done = subprocess.run(command, env=environment, cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_the_reference_of_the_flags_is_up_to_date() -> None:
    """`python docs/flags.py` writes it again."""
    page = runpy.run_path(str(ROOT / "docs" / "flags.py"))["page"]
    assert (ROOT / "docs" / "flags.md").read_text(encoding="utf-8") == page()
