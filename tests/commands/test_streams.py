"""The world of a command: closed or narrow standard streams, and working directories that are gone."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

import train
from ccp_dml import commands
from ccp_dml.run_directory import RunDirectory
from tests import ROOT

# Prints a word, and shows which numbers the next files get.
ACTION = """
import os, sys
from ccp_dml import commands
def action():
    print("ré \\u2026")
    assert os.open(os.devnull, os.O_RDONLY) > 2
    print("error: é", file=sys.stderr)
sys.exit(commands.run(action))
"""


def python(*arguments: str, redirect: str = "", cwd: Path = ROOT, **environment: str):
    """Runs Python by a shell, which redirects its streams."""
    command = ["sh", "-c", f'exec "$@" {redirect}', "sh", sys.executable, *arguments]
    variables = {**os.environ, "PYTHONPATH": str(ROOT), **environment}
    return subprocess.run(command, cwd=cwd, env=variables, capture_output=True, check=False)


@pytest.mark.parametrize(
    "redirect, out, error",
    [
        ("", "ré …\n".encode(), "error: é\n".encode()),
        (">&-", b"", "error: é\n".encode()),
        ("2>&-", "ré …\n".encode(), b""),
        ("<&- >&- 2>&-", b"", b""),
    ],
)
def test_closed_streams(redirect, out, error):
    done = python("-c", ACTION, redirect=redirect, PYTHONIOENCODING="utf-8")
    assert (done.returncode, done.stdout, done.stderr) == (0, out, error)


@pytest.mark.parametrize("encoding", ["ascii", "latin-1", "ascii:strict"])
def test_streams_that_cannot_encode_a_name(encoding, tmp_path):
    done = python("-c", ACTION, PYTHONIOENCODING=encoding)
    assert done.returncode == 0, done.stderr
    assert done.stdout in (b"r\\xe9 \\u2026\n", b"r\xe9 \\u2026\n")
    flags = ["--print_config", f"--run_dir={tmp_path / 'ré'}"]
    done = python(str(ROOT / "train.py"), *flags, PYTHONIOENCODING=encoding)
    assert done.returncode == 0, done.stderr
    assert b"One run in " in done.stdout


@pytest.mark.parametrize("arguments", [["--max_epochs=0"], ["--run_dir=x"], ["--data_dir=x"]])
def test_a_working_directory_that_was_removed(tmp_path, monkeypatch, capsys, arguments):
    gone = tmp_path / "gone"
    gone.mkdir()
    monkeypatch.chdir(gone)
    gone.rmdir()
    try:
        assert commands.run(lambda: train.main(arguments)) == commands.BAD_INPUT
    finally:
        os.chdir(ROOT)
    expected = "error: the working directory cannot be used: No such file or directory\n"
    assert capsys.readouterr().err == expected


@pytest.fixture
def open_folder():
    """A folder that every user may enter, unlike `tmp_path`."""
    with tempfile.TemporaryDirectory() as folder:
        Path(folder).chmod(0o755)
        yield Path(folder)


@pytest.fixture
def as_nobody():
    """Gives up the permissions of the superuser, who may enter every folder."""
    if os.geteuid():
        yield
        return
    os.seteuid(65534)
    yield
    os.seteuid(0)


@pytest.mark.parametrize("mode", [0o000, 0o444, 0o666, 0o222])
@pytest.mark.parametrize("below", ["run", "deep/run"])
def test_a_run_directory_below_a_folder_without_permission(open_folder, capsys, request, mode, below):
    closed = open_folder / "closed"
    closed.mkdir()
    closed.chmod(mode)
    request.getfixturevalue("as_nobody")
    try:
        arguments = ["--max_epochs=0", f"--run_dir={closed / below}"]
        assert commands.run(lambda: train.main(arguments)) == commands.BAD_INPUT
    finally:
        if os.getuid() == 0:
            os.seteuid(0)
        closed.chmod(0o755)
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith(f"error: --run_dir={closed / below}: expected a folder")
    assert RunDirectory(closed / below).state.name == "NEW"
