"""Runs the tests that need several devices in a process of their own, before TensorFlow starts there."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

_NAMES = ("on_replicas.py", "division_on_replicas.py", "sharded_training.py")
_FILES = [Path(__file__).with_name(name) for name in _NAMES]


@pytest.mark.parametrize("marked", ["not slow", pytest.param("slow", marks=pytest.mark.slow)])
def test_replicas_agree_with_one_device(marked: str) -> None:
    command = [sys.executable, "-m", "pytest", "-p", "no:xdist", "-q", "-m", marked, *map(str, _FILES)]
    environment = {name: value for name, value in os.environ.items() if not name.startswith("PYTEST_")}
    done = subprocess.run(
        command,
        cwd=_FILES[0].parents[2],
        env=environment,
        capture_output=True,
        text=True,
        check=False,
        timeout=3600,
    )
    assert done.returncode == 0, done.stdout[-8000:] + done.stderr[-2000:]
