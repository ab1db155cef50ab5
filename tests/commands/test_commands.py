"""The commands as a user meets them: exit codes, and one line on standard error."""

from __future__ import annotations

import os
import signal
import subprocess
import sys

import pytest

import train
from ccp_dml import commands, evaluate, export
from ccp_dml.config import ExperimentConfig
from ccp_dml.config.protocols import resolve
from ccp_dml.errors import ConfigError, Interrupted, UserError, as_user_errors
from ccp_dml.run_directory import RunDirectory
from tests import ROOT


def outcome(main, *arguments: str) -> int:
    return commands.run(lambda: main(arguments))


@pytest.mark.parametrize(
    "error, code, line",
    [
        (ConfigError("--x=1: expected\n  2"), 2, "error: --x=1: expected 2\n"),
        (UserError("a.png: truncated"), 2, "error: a.png: truncated\n"),
        (Interrupted("at step 3"), 130, "interrupted: at step 3\n"),
        (KeyboardInterrupt(), 130, "interrupted: stopped by Ctrl-C\n"),
        (
            RuntimeError("write() failed: No space left on device;\n writing a.array_record"),
            2,
            "error: the disk is full: write() failed: No space left on device; writing a.array_record\n",
        ),
    ],
)
def test_exit_codes(error, code, line, capsys):
    def fail():
        raise error

    assert commands.run(fail) == code
    assert capsys.readouterr().err == line


def test_a_defect_keeps_its_traceback():
    with pytest.raises(ZeroDivisionError):
        commands.run(lambda: 1 / 0)


def test_errors_of_input_become_user_errors():
    with pytest.raises(UserError, match="No such file"), as_user_errors(), open("/nonexistent"):
        pass
    with pytest.raises(KeyError), as_user_errors():
        raise KeyError("a defect")


def test_output_that_is_closed_early_is_not_an_error():
    reader, writer = os.pipe()
    os.close(reader)
    command = [sys.executable, "train.py", "--help"]
    done = subprocess.run(command, cwd=ROOT, stdout=writer, stderr=subprocess.PIPE, text=True)
    os.close(writer)
    assert (done.returncode, done.stderr) == (141, "")


def test_termination_is_reported_in_one_line():
    program = (
        "import sys, time; from ccp_dml import commands\n"
        "def wait(): print('ready', flush=True); time.sleep(60)\n"
        "sys.exit(commands.run(wait))"
    )
    process = subprocess.Popen(
        [sys.executable, "-c", program], cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    assert process.stdout.readline() == "ready\n"
    process.send_signal(signal.SIGTERM)
    assert process.communicate(timeout=30) == ("", "interrupted: stopped by SIGTERM\n")
    assert process.returncode == commands.INTERRUPTED


@pytest.mark.parametrize(
    "main, arguments, expected",
    [
        (train.main, ["--seed=abc"], "--seed=abc: expected an integer, at least 0"),
        (train.main, ["--loss=ccp"], "--loss=ccp"),
        (train.main, ["--dataset=image_folder", "--data_dir=/none"], "--data_dir=/none"),
        (
            train.main,
            ["--run_dir=ccp_dml"],
            "--run_dir=ccp_dml: the folder holds files and is no run directory",
        ),
        (train.main, ["--run_dir=train.py"], "--run_dir=train.py: expected a folder"),
        (train.main, ["--run_dir=train.py/deeper"], "--run_dir=train.py/deeper: expected a folder"),
        (evaluate.main, [], "--run_dir"),
        (evaluate.main, ["--run_dir=none"], "--run_dir=none: expected a finished run; found nothing"),
        (evaluate.main, ["--run_dir=none", "--seed=1"], "--seed=1"),
        (export.main, ["--run_dir=none"], "--output"),
        (export.main, ["--run_dir=none", "--output=out"], "--run_dir=none: expected a finished run"),
    ],
)
def test_a_mistake_gives_one_line_and_exit_code_2(main, arguments, expected, capsys, monkeypatch):
    monkeypatch.chdir(ROOT)
    assert outcome(main, *arguments) == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err.startswith("error: ")
    assert captured.err.count("\n") == 1
    assert expected in captured.err


@pytest.mark.parametrize("command", [["train.py", "--sed=1"], ["-m", "ccp_dml.evaluate", "--run_dir=none"]])
def test_a_mistake_in_a_process_of_its_own(command):
    done = subprocess.run([sys.executable, *command], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 2
    assert done.stdout == ""
    assert done.stderr.startswith("error: --")
    assert done.stderr.count("\n") == 1


@pytest.mark.parametrize(
    "command", [["train.py"], *(["-m", f"ccp_dml.{name}"] for name in ("train", "evaluate", "export"))]
)
def test_without_the_requirements_a_command_names_them_in_one_line(command):
    arguments = [sys.executable, "-S", "-E", *command, "--help"]
    done = subprocess.run(arguments, cwd=ROOT, capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (1, "")
    assert "lacks the packages absl, numpy, PIL, tensorflow" in done.stderr
    assert "-m pip install -r requirements.txt" in done.stderr
    assert done.stderr.count("\n") == 1


@pytest.mark.parametrize("overwrite", [[], ["--overwrite"]])
def test_a_folder_that_is_not_a_run_stays_as_it_is(tmp_path, overwrite, capsys):
    (tmp_path / "results.json").write_text("a note")
    assert outcome(train.main, f"--run_dir={tmp_path}", *overwrite) == 2
    assert [file.read_text() for file in tmp_path.iterdir()] == ["a note"]
    assert "is no run directory" in capsys.readouterr().err


def test_export_overwrites_nothing(tmp_path, capsys):
    run_dir, output = tmp_path / "run", tmp_path / "output"
    directory = RunDirectory(run_dir)
    directory.begin(resolve(ExperimentConfig()).replace(run_dir=str(run_dir)))
    directory.finish({})
    output.mkdir()
    (output / "note").touch()
    assert outcome(export.main, f"--run_dir={run_dir}", f"--output={output}") == 2
    assert "expected a new or empty folder" in capsys.readouterr().err
    assert [file.name for file in output.iterdir()] == ["note"]
