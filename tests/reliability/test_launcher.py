from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from ccp_dml import faults

ROOT = Path(__file__).parents[2]


def test_nothing_happens_without_the_variable(monkeypatch):
    monkeypatch.delenv(faults.VARIABLE, raising=False)
    faults.passage("step")


def test_the_process_is_killed_at_the_passage_that_is_asked_for():
    code = "from ccp_dml import faults\nfor i in range(9): print(i, flush=True); faults.passage('step')"
    environment = os.environ | {faults.VARIABLE: "step:3"}
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, env=environment, stdout=subprocess.PIPE)
    assert done.returncode == -signal.SIGKILL
    assert done.stdout.split() == [b"0", b"1", b"2"]


def test_an_error_is_raised_once(monkeypatch):
    monkeypatch.setenv(faults.VARIABLE, "export:2:ENOSPC")
    for point in ("step", "export", "step"):
        faults.passage(point)
    with pytest.raises(OSError, match="No space left on device"):
        faults.passage("export")
    faults.passage("export")


@pytest.mark.parametrize("setting", ["nowhere:1", "step", "step:x"])
def test_a_wrong_setting_is_no_silent_success(monkeypatch, setting):
    monkeypatch.setenv(faults.VARIABLE, setting)
    with pytest.raises(ValueError, match="PLACE:COUNT"):
        faults.passage("step")


def test_every_place_is_in_the_code():
    code = "".join(path.read_text() for path in (ROOT / "ccp_dml").rglob("*.py"))
    named = set(re.findall(r'faults\.passage\("([a-z_]+)"\)', code))
    files = {point for point in faults.POINTS if "." in point}
    assert named | files == set(faults.POINTS)
