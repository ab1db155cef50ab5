"""Durable writes, and the locks of run directories and prepared data."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys

import pytest

from ccp_dml import files
from ccp_dml.errors import ConfigError
from tests import ROOT
from tests.reliability import launcher

HOLDER = """
import sys
from ccp_dml.files import run_lock
with run_lock(sys.argv[1]):
    print("locked", flush=True)
    sys.stdin.read()
"""


@pytest.fixture
def calls(monkeypatch) -> list[str]:
    """Names of calls of the operating system, in order."""
    made: list[str] = []
    for name in ("fsync", "replace", "rename"):
        function = getattr(os, name)

        def recorded(*arguments, name=name, function=function):
            made.append(name)
            return function(*arguments)

        monkeypatch.setattr(os, name, recorded)
    return made


def test_a_file_is_on_the_disk_before_it_gets_its_name_and_then_the_name_is_too(tmp_path, calls):
    files.write_text(tmp_path / "a.csv", "ä\r\n")
    assert (tmp_path / "a.csv").read_bytes() == "ä\r\n".encode()
    assert calls == ["fsync", "replace", "fsync"]


def test_a_write_that_fails_leaves_the_file_as_it_was(tmp_path):
    files.write_text(tmp_path / "metrics.csv", "before")
    with launcher.Fault("metrics.csv:1:ENOSPC"), pytest.raises(OSError, match="No space left"):
        files.write_text(tmp_path / "metrics.csv", "after")
    assert (tmp_path / "metrics.csv").read_text() == "before"


def test_every_file_of_a_folder_reaches_the_disk(tmp_path, calls):
    (tmp_path / "variables").mkdir()
    for name in ("saved_model.pb", "variables/data", "variables/index"):
        (tmp_path / name).touch()
    files.to_disk(tmp_path)
    assert calls == ["fsync"] * 5


def test_the_new_name_of_a_folder_is_on_the_disk(tmp_path, calls):
    (tmp_path / "unfinished").mkdir()
    files.rename(tmp_path / "unfinished", tmp_path / "finished")
    assert (tmp_path / "finished").is_dir()
    assert calls == ["rename", "fsync"]


def test_a_second_process_is_refused_until_the_first_is_gone(tmp_path):
    folder = tmp_path / "new" / "run"
    with subprocess.Popen(
        [sys.executable, "-c", HOLDER, str(folder)], cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as holder:
        assert holder.stdout.readline() == b"locked\n"
        expected = rf"process {holder.pid} on {socket.gethostname()} is working in it; expected another"
        with pytest.raises(ConfigError, match=expected), files.run_lock(folder):
            pass
        os.kill(holder.pid, signal.SIGKILL)
        holder.wait()
    with files.run_lock(folder):
        expected = f"process {os.getpid()} on {socket.gethostname()}\n"
        assert (folder / files.LOCK_HOLDER).read_text() == expected
    assert not folder.exists()
    with files.run_lock(folder):
        (folder / "something").touch()
    assert (folder / "something").exists()


def test_a_run_directory_that_cannot_be_made(tmp_path):
    (tmp_path / "file").touch()
    with (
        pytest.raises(ConfigError, match="cannot be written: Not a directory"),
        files.run_lock(tmp_path / "file" / "run"),
    ):
        pass
