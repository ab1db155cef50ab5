"""Commands as a user types them: exit codes, one line on standard error, the rules of run directories."""

from __future__ import annotations

import datetime
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

import train
from ccp_dml import commands, environment, evaluate, export
from ccp_dml.config import ExperimentConfig, command_line
from ccp_dml.errors import ConfigError, Interrupted, UserError, as_user_errors
from ccp_dml.run_directory import RunDirectory, State
from ccp_dml.run_lock import run_lock

ROOT = Path(__file__).parents[2]


def outcome(main, *arguments: str) -> int:
    return commands.run(lambda: main(arguments))


@pytest.mark.parametrize(
    "arguments, expected",
    [
        (["--seed=abc"], "--seed=abc: expected an integer, at least 0"),
        (["--seed", "-1"], "--seed=-1: expected an integer"),
        (["--seed"], "--seed"),
        (["--lerning_rate=1"], "--lerning_rate: unknown flag; did you mean --learning_rate?"),
        (["--zzz"], "--zzz: unknown flag; --help lists all flags"),
        (["emoji"], "emoji: unexpected argument"),
        (["--", "emoji"], "emoji: unexpected argument"),
        (["--overwrite=maybe"], "--overwrite=maybe: expected true or false"),
        (["--nooverwrite=true"], "nooverwrite"),
        (["--noseed"], "--noseed: unknown flag"),
        (["--mixed_precision=half"], "--mixed_precision=half: expected one of float32"),
        (["--recall_at=1;2"], "--recall_at=1;2: expected increasing positive integers"),
        (["--flagfile=none.cfg"], "--flagfile=none.cfg: cannot be read: No such file"),
        (["--flagfile"], "--flagfile: expected a file name"),
        (["--loss=ccp"], "--loss=ccp"),
        (["--dataset=image_folder", "--data_dir=/none"], "--data_dir=/none"),
        (["--run_dir=ccp_dml"], "--run_dir=ccp_dml: the folder holds files and is no run directory"),
        (["--run_dir=train.py"], "--run_dir=train.py: expected a folder"),
        (["--run_dir=train.py/deeper"], "--run_dir=train.py/deeper: expected a folder"),
    ],
)
def test_bad_input_gives_one_line_and_exit_code_2(arguments, expected, capsys, monkeypatch):
    monkeypatch.chdir(ROOT)
    assert outcome(train.main, *arguments) == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err.startswith("error: ")
    assert captured.err.count("\n") == 1
    assert expected in captured.err


@pytest.mark.parametrize("overwrite", [[], ["--overwrite"]])
def test_a_folder_that_is_no_run_stays_as_it_is(tmp_path, overwrite, capsys):
    (tmp_path / "results.json").write_text("mine")
    assert outcome(train.main, f"--run_dir={tmp_path}", *overwrite) == 2
    assert [file.read_text() for file in tmp_path.iterdir()] == ["mine"]
    assert "is no run directory" in capsys.readouterr().err


@pytest.mark.parametrize("command", [["train.py", "--sed=1"], ["-m", "ccp_dml.evaluate", "--run_dir=none"]])
def test_as_a_process(command):
    done = subprocess.run([sys.executable, *command], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 2
    assert done.stdout == ""
    assert done.stderr.startswith("error: --")
    assert done.stderr.count("\n") == 1


def test_switches_and_unset_values():
    config = command_line.read(
        ["--nohorizontal_flip", "--overwrite", "--mixed_precision", "--margin=1", "--margin="]
    )
    assert config.data.horizontal_flip is False
    assert config.run.overwrite is True
    assert config.training.mixed_precision == "mixed_bfloat16"
    assert config.loss.margin is None


@pytest.mark.parametrize("asked", ["--help", "-h", "--helpfull"])
def test_help_lists_every_flag(asked, capsys):
    assert outcome(train.main, "--flagfile=none.cfg", asked) == 0
    text = capsys.readouterr().out
    for flag, _ in ExperimentConfig().items():
        assert f"\n  --{flag.name} " in text
    assert all(len(line) <= 120 for line in text.splitlines())
    assert ("Takes one of average, max, both, none, gem." in text) == (asked == "--helpfull")


def test_the_default_run_directory_names_the_data_and_the_loss_without_a_flagfile():
    assert command_line.parse(["--loss=contrastive"]).run.run_dir.startswith("runs/emoji-contrastive-")


@pytest.mark.parametrize(
    "error, code, line",
    [
        (ConfigError("--x=1: expected\n  2"), 2, "error: --x=1: expected 2\n"),
        (UserError("a.png: truncated"), 2, "error: a.png: truncated\n"),
        (Interrupted("at step 3"), 130, "interrupted: at step 3\n"),
        (KeyboardInterrupt(), 130, "interrupted: stopped by Ctrl-C\n"),
    ],
)
def test_exit_codes(error, code, line, capsys):
    def fail():
        raise error

    assert commands.run(fail) == code
    assert capsys.readouterr().err == line


def test_output_that_is_closed_early_is_no_error():
    reader, writer = os.pipe()
    os.close(reader)
    command = [sys.executable, "train.py", "--help"]
    done = subprocess.run(command, cwd=ROOT, stdout=writer, stderr=subprocess.PIPE, text=True)
    os.close(writer)
    assert (done.returncode, done.stderr) == (141, "")


def test_defects_keep_their_traceback():
    with pytest.raises(ZeroDivisionError):
        commands.run(lambda: 1 / 0)


def test_errors_of_input_become_user_errors():
    with pytest.raises(UserError, match="No such file"), as_user_errors(), open("/nonexistent"):
        pass
    with pytest.raises(KeyError), as_user_errors():
        raise KeyError("a defect")


class TestRunDirectory:
    @pytest.fixture
    def path(self, tmp_path) -> Path:
        return tmp_path / "runs" / "one"

    def config(self, path: Path, **values) -> ExperimentConfig:
        return ExperimentConfig().resolve().replace(run_dir=str(path), **values)

    def begun(self, path: Path, **values) -> RunDirectory:
        directory = RunDirectory(path)
        assert directory.begin(self.config(path, **values)) is False
        return directory

    def test_a_new_one(self, path):
        directory = RunDirectory(path)
        directory.check(self.config(path))
        assert not path.parent.exists()
        assert directory.state is State.NEW
        directory = self.begun(path)
        assert directory.state is State.UNFINISHED
        assert directory.read_config() == self.config(path)
        recorded = json.loads(directory.environment.read_text())
        assert recorded["versions"]["tensorflow"] == environment.versions()["tensorflow"]

    def test_the_same_flags_continue_it(self, path):
        directory = self.begun(path)
        (directory.checkpoints / "a").mkdir(parents=True)
        assert directory.begin(self.config(path)) is True
        assert directory.checkpoints.exists()

    def test_changed_flags_are_refused_with_both_values(self, path):
        directory = self.begun(path, seed=3, recall_at=(1, 2))
        with pytest.raises(ConfigError, match=r"--seed=4: .* has 3; expected"):
            directory.begin(self.config(path, seed=4, recall_at=(1, 2)))
        with pytest.raises(ConfigError, match=r"--recall_at=1: .* has 1,2; expected"):
            directory.check(self.config(path, seed=3, recall_at=(1,)))

    def test_flags_that_leave_the_result_alone_may_change(self, path):
        directory = self.begun(path, max_epochs=5)
        changed = self.config(path, max_epochs=7, tensorboard_panels=0, checkpoint_steps=9)
        assert directory.begin(changed) is True
        assert directory.read_config() == changed
        with pytest.raises(ConfigError, match=r"--max_epochs=6: .* has 7; expected"):
            directory.begin(self.config(path, max_epochs=6))

    def test_one_that_was_killed_before_its_marker_is_new(self, path):
        path.mkdir(parents=True)
        (path / ".ccp_dml_run.partial").write_text("{")
        with run_lock(path):
            assert RunDirectory(path).state is State.NEW
            self.begun(path)

    def test_other_data_are_refused(self, path):
        directory = self.begun(path)
        directory.record_data("a" * 64)
        directory.record_data("a" * 64)
        assert json.loads(directory.environment.read_text())["data_fingerprint"] == "a" * 64
        with pytest.raises(ConfigError, match="data set has changed.*aaaaaaaaaaaa….*bbbbbbbbbbbb…"):
            directory.record_data("b" * 64)

    def test_a_finished_one_is_refused(self, path):
        directory = self.begun(path)
        directory.finish({"test": {"map_at_r": 0.5}})
        assert directory.state is State.FINISHED
        assert directory.read_results() == {"test": {"map_at_r": 0.5}}
        with pytest.raises(ConfigError, match="finished run; expected another folder, or --overwrite"):
            directory.begin(self.config(path))
        assert directory.results.exists()

    def test_overwriting_deletes_what_a_run_wrote_and_nothing_else(self, path):
        directory = self.begun(path)
        (path / "notes.txt").write_text("mine")
        directory.saved_model.mkdir()
        directory.finish({})
        assert directory.begin(self.config(path, overwrite=True, seed=9)) is False
        assert directory.state is State.UNFINISHED
        assert directory.read_config().run.seed == 9
        assert not directory.saved_model.exists()
        assert (path / "notes.txt").read_text() == "mine"

    def test_overwriting_replaces_an_unfinished_one_that_began_without(self, path):
        directory = self.begun(path)
        directory.checkpoints.mkdir()
        assert directory.begin(self.config(path, overwrite=True)) is False
        assert not directory.checkpoints.exists()

    def test_the_same_command_continues_what_began_with_overwriting(self, path):
        directory = self.begun(path, overwrite=True)
        directory.checkpoints.mkdir()
        assert directory.begin(self.config(path, overwrite=True)) is True
        assert directory.checkpoints.exists()
        assert directory.begin(self.config(path, overwrite=True, seed=5)) is False
        assert not directory.checkpoints.exists()

    def test_reading_what_is_no_run(self, path):
        with pytest.raises(ConfigError, match="found nothing"):
            RunDirectory(path).read_config()
        with pytest.raises(UserError, match="expected a finished run; found a run without results"):
            self.begun(path).read_results()


@pytest.mark.parametrize(
    "main, arguments, expected",
    [
        (evaluate.main, [], "--run_dir"),
        (evaluate.main, ["--run_dir=none"], "--run_dir=none: expected a finished run; found nothing"),
        (evaluate.main, ["--run_dir=none", "--seed=1"], "--seed=1"),
        (export.main, ["--run_dir=none"], "--output"),
        (export.main, ["--run_dir=none", "--output=out"], "--run_dir=none: expected a finished run"),
    ],
)
def test_mistakes_of_the_other_commands(main, arguments, expected, capsys):
    assert outcome(main, *arguments) == 2
    captured = capsys.readouterr()
    assert expected in captured.err
    assert captured.err.count("\n") == 1


def test_export_overwrites_nothing(tmp_path, capsys):
    run_dir, output = tmp_path / "run", tmp_path / "output"
    directory = RunDirectory(run_dir)
    directory.begin(ExperimentConfig().resolve().replace(run_dir=str(run_dir)))
    directory.finish({})
    output.mkdir()
    (output / "mine").touch()
    assert outcome(export.main, f"--run_dir={run_dir}", f"--output={output}") == 2
    assert "expected a new or empty folder" in capsys.readouterr().err
    assert [file.name for file in output.iterdir()] == ["mine"]


def test_the_default_folder_is_a_new_one_whatever_the_clock_says(tmp_path, monkeypatch):
    class Stopped(datetime.datetime):
        @classmethod
        def now(cls, tz=None):
            return cls(2026, 1, 2, 3, 4, 5, tzinfo=tz)

    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(command_line.datetime, "datetime", Stopped)
    folders = []
    for _ in range(3):
        folders.append(Path(command_line.parse(["--dataset=emoji"]).run.run_dir))
        folders[-1].mkdir(parents=True)
    name = "emoji-ccp-contrastive-20260102-030405"
    assert [folder.name for folder in folders] == [name, f"{name}-2", f"{name}-3"]
