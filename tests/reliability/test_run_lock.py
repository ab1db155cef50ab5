from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from ccp_dml.errors import ConfigError
from ccp_dml.run_lock import run_lock

ROOT = Path(__file__).parents[2]
HOLDER = """
import sys
from ccp_dml.run_lock import run_lock
with run_lock(sys.argv[1]):
    print("locked", flush=True)
    sys.stdin.read()
"""


def test_a_second_process_is_refused_until_the_first_is_gone(tmp_path):
    folder = tmp_path / "new" / "run"
    with subprocess.Popen(
        [sys.executable, "-c", HOLDER, str(folder)], cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as holder:
        assert holder.stdout.readline() == b"locked\n"
        expected = rf"process {holder.pid} on {socket.gethostname()} is working in it; expected another"
        with pytest.raises(ConfigError, match=expected), run_lock(folder):
            pass
        os.kill(holder.pid, signal.SIGKILL)
        holder.wait()
    with run_lock(folder):
        assert (folder / ".lock").read_text() == f"process {os.getpid()} on {socket.gethostname()}\n"
    assert not folder.exists()
    with run_lock(folder):
        (folder / "something").touch()
    assert (folder / "something").exists()


def test_a_folder_that_cannot_be_made(tmp_path):
    (tmp_path / "file").write_text("")
    with (
        pytest.raises(ConfigError, match="cannot be written: Not a directory"),
        run_lock(tmp_path / "file/run"),
    ):
        pass
