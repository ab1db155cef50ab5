"""Faults at named places: they happen where and as often as asked for, and every place exists."""

from __future__ import annotations

import signal
import subprocess
import sys

import pytest

import train
from ccp_dml import commands, files
from tests import ROOT
from tests.data.image_folder import write_classes
from tests.reliability import launcher
from tests.reliability.killed_runs import SHORT_CCP, SHORT_RUN

PROGRAM = """
import sys
from pathlib import Path
from ccp_dml import files
for index in range(9):
    print(index, *sys.argv[1:], flush=True)
    files.write_text(Path("metrics.csv"), "")
"""


@pytest.fixture
def program(tmp_path, monkeypatch) -> list[str]:
    """A command that writes metrics.csv nine times, up to the arguments of the launcher."""
    (tmp_path / "program.py").write_text(PROGRAM)
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    return [sys.executable, "-m", "tests.reliability.launcher"]


@pytest.mark.parametrize("name", [["program.py"], ["-m", "program"]])
def test_the_program_is_killed_at_the_passage_that_was_asked_for(program, tmp_path, name):
    done = subprocess.run(
        [*program, "metrics.csv:3", *name, "flag"], cwd=tmp_path, stdout=subprocess.PIPE, text=True
    )
    assert done.returncode == -signal.SIGKILL
    assert done.stdout.splitlines() == ["0 flag", "1 flag", "2 flag"]


def test_a_program_that_does_not_pass_the_place_fails(program, tmp_path):
    command = [*program, "metrics.csv:10", "program.py"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == launcher.NOT_PASSED
    assert "metrics.csv:10: the program has ended without passing it" in done.stderr


def test_an_error_is_raised_once_and_only_at_its_place(tmp_path):
    with launcher.Fault("results.json:2:ENOSPC") as fault:
        for name in ("config.cfg", "results.json", "config.cfg"):
            files.write_text(tmp_path / name, "")
        assert not fault.happened
        with pytest.raises(OSError, match="No space left on device: 'results.json'"):
            files.write_text(tmp_path / "results.json", "")
        files.write_text(tmp_path / "results.json", "")
    assert fault.happened


@pytest.mark.parametrize("setting", ["nowhere:1", "step", "step:x", "step:0", "step:1:SIGNOTHING"])
def test_a_wrong_setting_is_an_error(setting):
    with pytest.raises(ValueError, match=f"^{setting}: expected "):
        launcher.Fault(setting)


@pytest.mark.parametrize("function", ["os:no_such_function", "ccp_dml.nothing:function", "os:path.none"])
def test_a_place_that_does_not_exist_any_more_is_an_error(monkeypatch, function):
    monkeypatch.setitem(launcher.PLACES, "step", launcher.Place(function))
    with pytest.raises(AttributeError, match="place step: .* does not exist"), launcher.Fault("step:1"):
        pass


def test_a_run_passes_every_place(tmp_path):
    """Otherwise a test could wait for a place whose function exists, but is not called any more."""
    flags = [
        *SHORT_RUN,
        *SHORT_CCP,
        f"--data_dir={write_classes(tmp_path / 'source', 10)}",
        f"--prepared_dir={tmp_path / 'prepared'}",
        f"--run_dir={tmp_path / 'run'}",
        "--max_epochs=3",
        "--chunk_size=3",
        "--checkpoint_keep=1",
        "--notensorboard",
    ]
    passed: list[str] = []
    with launcher.watch(launcher.PLACES, passed.append):
        assert commands.run(lambda: train.main(flags)) == 0
    first_epoch = ["step", "validation", "metrics.csv", "checkpoint_write", "checkpoint_rename"]
    assert passed[:5] == [".ccp_dml_run", "environment.json", "config.cfg", "environment.json", "tracing"]
    assert [place for place in passed[5:] if place != "reset"][:5] == first_epoch
    assert passed[-4:] == ["weights", "export", "export_replace", "results.json"]
    counts = {place: passed.count(place) for place in launcher.PLACES}
    assert counts["step"] == counts["validation"] == counts["metrics.csv"] == counts["checkpoint_write"] == 3
    assert set(passed) == set(launcher.PLACES)
