"""The Python examples of the README, docs/losses.md and docs/protocols.md run as they are printed."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from tests import ROOT


def library_section() -> str:
    return (ROOT / "README.md").read_text().split("## As a library", 1)[1].split("\n## ", 1)[0]


def losses() -> str:
    return (ROOT / "docs" / "losses.md").read_text()


def protocols() -> str:
    return (ROOT / "docs" / "protocols.md").read_text()


@pytest.mark.parametrize("text", [library_section, losses, pytest.param(protocols, marks=pytest.mark.slow)])
def test_the_examples_run_one_after_the_other(text: Callable[[], str], tmp_path: Path) -> None:
    blocks = re.findall(r"```python\n(.*?)```", text(), flags=re.DOTALL)
    assert blocks
    environment = {**os.environ, "TF_CPP_MIN_LOG_LEVEL": "3", "PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-c", "\n".join(blocks)]
    done = subprocess.run(command, env=environment, cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
