"""Run directories: new, continued, finished, replaced or refused."""

from __future__ import annotations

import functools
import json
from pathlib import Path

import pytest

import train
from ccp_dml import commands, environment, evaluate, export
from ccp_dml.config import ExperimentConfig
from ccp_dml.config.protocols import resolve
from ccp_dml.errors import ConfigError, UserError
from ccp_dml.files import run_lock
from ccp_dml.run_directory import RunDirectory, State


@pytest.fixture
def path(tmp_path) -> Path:
    return tmp_path / "runs" / "one"


def config(path: Path, **values) -> ExperimentConfig:
    return resolve(ExperimentConfig()).replace(run_dir=str(path), **values)


def begun(path: Path, **values) -> RunDirectory:
    directory = RunDirectory(path)
    assert directory.begin(config(path, **values)) is False
    return directory


def test_a_new_run_directory(path):
    directory = RunDirectory(path)
    directory.check(config(path))
    assert not path.parent.exists()
    assert directory.state is State.NEW
    directory = begun(path)
    assert directory.state is State.UNFINISHED
    assert directory.read_config() == config(path)
    recorded = json.loads(directory.environment.read_text())
    assert recorded["versions"]["tensorflow"] == environment.versions()["tensorflow"]


def test_the_same_flags_continue_a_run(path):
    directory = begun(path)
    (directory.checkpoints / "a").mkdir(parents=True)
    assert directory.begin(config(path)) is True
    assert directory.checkpoints.exists()


def test_changed_flags_are_refused_with_both_values(path):
    directory = begun(path, seed=3, recall_at=(1, 2))
    with pytest.raises(ConfigError, match=r"--seed=4: .* has 3; expected"):
        directory.begin(config(path, seed=4, recall_at=(1, 2)))
    with pytest.raises(ConfigError, match=r"--recall_at=1: .* has 1,2; expected"):
        directory.check(config(path, seed=3, recall_at=(1,)))


def test_flags_that_do_not_change_the_result_may_change(path):
    directory = begun(path, max_epochs=5)
    changed = config(path, max_epochs=7, tensorboard_panels=0, checkpoint_steps=9)
    assert directory.begin(changed) is True
    assert directory.read_config() == changed
    with pytest.raises(ConfigError, match=r"--max_epochs=6: .* has 7; expected"):
        directory.begin(config(path, max_epochs=6))


def test_options_without_effect_do_not_stop_a_run_from_continuing(path):
    values = {"loss": "contrastive", "pool_size": 3, "momentum": 0.5, "batch_size": 9, "data_seed": 1}
    complete = resolve(ExperimentConfig.from_dict(values)).replace(run_dir=str(path))
    assert RunDirectory(path).begin(complete) is False
    assert RunDirectory(path).begin(complete) is True


def test_the_folder_of_a_run_that_was_killed_before_its_marker_is_new(path):
    path.mkdir(parents=True)
    (path / ".ccp_dml_run.partial").write_text("{")
    with run_lock(path):
        assert RunDirectory(path).state is State.NEW
        begun(path)


def test_other_data_is_refused(path):
    directory = begun(path)
    directory.record_data("a" * 64)
    directory.record_data("a" * 64)
    assert json.loads(directory.environment.read_text())["data_fingerprint"] == "a" * 64
    with pytest.raises(ConfigError, match="data set has changed.*aaaaaaaaaaaa….*bbbbbbbbbbbb…"):
        directory.record_data("b" * 64)


def test_a_finished_run_is_refused(path):
    directory = begun(path)
    directory.finish({"test": {"map_at_r": 0.5}})
    assert directory.state is State.FINISHED
    assert directory.read_results() == {"test": {"map_at_r": 0.5}}
    with pytest.raises(ConfigError, match="finished run; expected another folder, or --overwrite"):
        directory.begin(config(path))
    assert directory.results.exists()


def test_overwriting_deletes_what_a_run_wrote_and_nothing_else(path):
    directory = begun(path)
    (path / "notes.txt").write_text("a note")
    directory.saved_model.mkdir()
    directory.finish({})
    assert directory.begin(config(path, overwrite=True, seed=9)) is False
    assert directory.state is State.UNFINISHED
    assert directory.read_config().run.seed == 9
    assert not directory.saved_model.exists()
    assert (path / "notes.txt").read_text() == "a note"


def test_overwriting_replaces_an_unfinished_run_that_began_without(path):
    directory = begun(path)
    directory.checkpoints.mkdir()
    assert directory.begin(config(path, overwrite=True)) is False
    assert not directory.checkpoints.exists()


def test_the_same_command_continues_a_run_that_began_with_overwriting(path):
    directory = begun(path, overwrite=True)
    directory.checkpoints.mkdir()
    assert directory.begin(config(path, overwrite=True)) is True
    assert directory.checkpoints.exists()
    assert directory.begin(config(path, overwrite=True, seed=5)) is False
    assert not directory.checkpoints.exists()


def test_a_folder_that_is_not_a_run_cannot_be_read(path):
    with pytest.raises(ConfigError, match="found nothing"):
        RunDirectory(path).read_config()
    with pytest.raises(UserError, match="expected a finished run; found a run without results"):
        begun(path).read_results()


@pytest.fixture
def of_another_version(path) -> RunDirectory:
    """A finished run of version 0.1.0, whose marker has no format."""
    directory = begun(path)
    (path / ".ccp_dml_run").write_text('{"overwrite": false}\n')
    directory.finish({"test": {"map_at_r": 0.5}})
    return directory


@pytest.mark.parametrize("is_finished", [True, False])
def test_a_run_of_version_0_1_0_is_neither_continued_nor_evaluated_nor_exported(
    of_another_version, tmp_path, capsys, is_finished
):
    if not is_finished:
        of_another_version.results.unlink()
    run_dir, output = f"--run_dir={of_another_version.path}", tmp_path / "output"
    found = "a run of version 0.1.0, which only that version can use"
    for main, arguments, expected in (
        (train.main, [run_dir], f"it holds {found}; expected another folder, or --overwrite"),
        (evaluate.main, [run_dir], f"expected a finished run; found {found}"),
        (export.main, [run_dir, f"--output={output}"], f"expected a finished run; found {found}"),
    ):
        assert commands.run(functools.partial(main, arguments)) == commands.BAD_INPUT
        assert capsys.readouterr() == ("", f"error: {run_dir}: {expected}\n")
    assert not output.exists()


def test_a_run_of_a_newer_version_is_refused(path):
    begun(path)
    (path / ".ccp_dml_run").write_text('{"format": 3, "overwrite": false}\n')
    with pytest.raises(ConfigError, match="it holds a run of a newer version, which only that version can"):
        RunDirectory(path).check(config(path))
    with pytest.raises(ConfigError, match="expected the folder of a run; found a run of a newer version"):
        RunDirectory(path).read_config()


def test_a_run_of_another_version_can_be_replaced(of_another_version, path):
    of_another_version.saved_model.mkdir()
    assert of_another_version.begin(config(path, overwrite=True)) is False
    assert of_another_version.state is State.UNFINISHED
    assert not of_another_version.saved_model.exists()


def test_a_damaged_marker_is_refused(path):
    begun(path)
    (path / ".ccp_dml_run").write_text("{")
    with pytest.raises(ConfigError, match="which only that version can use"):
        RunDirectory(path).check(config(path))
