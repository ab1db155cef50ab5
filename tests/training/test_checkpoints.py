"""Checkpoints: keeping, restoring, refusing, and the times of writing."""

from __future__ import annotations

import errno
import os
import shutil
import types

import pytest
import tensorflow as tf

from ccp_dml import files
from ccp_dml.training import checkpoints as module
from ccp_dml.training.checkpoints import CheckpointError, Checkpoints
from ccp_dml.training.options import CheckpointOptions
from tests.training import tiny


def tracked(directory, **state) -> Checkpoints:
    """Makes checkpoints of the given objects."""
    checkpoints = Checkpoints(directory)
    checkpoints.track(**state)
    return checkpoints


def saved(directory, *steps: int) -> Checkpoints:
    """Saves checkpoints of a variable that is ten times the step."""
    value = tf.Variable(0)
    checkpoints = tracked(directory, value=value)
    for step in steps:
        value.assign(step * 10)
        checkpoints.save(step)
    return checkpoints


def damage(directory, step: int, file: str = "data") -> None:
    """Flips bits in the middle of a file."""
    (path,) = (directory / f"step-{step}").glob(f"state.{file}*")
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 0xFF
    path.write_bytes(content)


def test_the_last_checkpoints_are_kept_and_the_newest_is_restored(tmp_path):
    assert tracked(tmp_path / "none", value=tf.Variable(0)).restore() is None
    checkpoints = saved(tmp_path, 1, 2, 9, 10, 10)
    assert checkpoints.steps == [9, 10]
    other = tf.Variable(0)
    assert tracked(tmp_path, value=other).restore() == checkpoints.latest == str(tmp_path / "step-10/state")
    assert int(other) == 100


def test_the_best_checkpoint_is_kept_until_another_one_is_best(tmp_path):
    checkpoints = tracked(tmp_path, value=tf.Variable(0))
    for step, best in ((1, 1), (2, 1), (3, 1), (4, 1)):
        checkpoints.save(step, best)
    assert checkpoints.steps == [1, 3, 4]
    checkpoints.save(5, 5)
    assert checkpoints.steps == [4, 5]


@pytest.mark.parametrize("file", ["data", "index"])
def test_after_a_damaged_checkpoint_the_one_before_is_restored_with_a_warning(tmp_path, capsys, file):
    saved(tmp_path, 1, 2)
    damage(tmp_path, 2, file)
    value = tf.Variable(0)
    checkpoints = tracked(tmp_path, value=value)
    assert checkpoints.restore() == str(tmp_path / "step-1/state")
    assert int(value) == 10
    (message,) = capsys.readouterr().err.splitlines()
    assert message.startswith(f"warning: {tmp_path / 'step-2/state'}")
    assert message.endswith("continuing from the one before, step 1")
    checkpoints.save(2)  # The damaged one was removed.
    value.assign(0)
    assert checkpoints.restore().endswith("step-2/state")
    assert int(value) == 10


def harmed(path, kind: str) -> None:
    """Harms a file of a checkpoint, or the folder of one."""
    content = path.read_bytes() if path.is_file() else b""
    shutil.rmtree(path) if path.is_dir() else path.unlink()
    if kind == "folder":
        path.mkdir()
    elif kind == "dangling link":
        path.symlink_to(path.with_name("nowhere"))
    elif kind != "missing":
        path.write_bytes({"half": content[: len(content) // 2], "zeros": bytes(len(content))}.get(kind, b""))


HARMS = ["missing", "empty", "half", "zeros", "folder", "dangling link"]


@pytest.mark.parametrize("kind", HARMS)
@pytest.mark.parametrize("name", ["state.index", "state.data-00000-of-00001"])
def test_a_file_of_the_newest_checkpoint_is_harmed(tmp_path, capsys, name, kind):
    saved(tmp_path, 1, 2)
    harmed(tmp_path / "step-2" / name, kind)
    value = tf.Variable(0)
    checkpoints = tracked(tmp_path, value=value)
    assert checkpoints.restore() == str(tmp_path / "step-1/state")
    assert int(value) == 10
    checkpoints.save(2)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["step-1", "step-2"]
    assert checkpoints.restore().endswith("step-2/state")


@pytest.mark.parametrize("kind", ["missing", "empty", "folder", "dangling link"])
def test_what_has_the_name_of_a_checkpoint_and_is_none(tmp_path, capsys, kind):
    """An empty folder counts as a damaged checkpoint; all else is none, and makes way for one."""
    saved(tmp_path, 1, 2)
    harmed(tmp_path / "step-2", kind)
    (tmp_path / ".writing-step-9").write_text("a file")
    value = tf.Variable(0)
    checkpoints = tracked(tmp_path, value=value)
    assert checkpoints.restore() == str(tmp_path / "step-1/state")
    checkpoints.save(2)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["step-1", "step-2"]


@pytest.mark.parametrize("name", ["step-2", "step-2/state.index", "step-2/state.data-00000-of-00001"])
def test_a_checkpoint_without_permission_is_kept(tmp_path, monkeypatch, name):
    """The tests may run as the superuser, who reads everything."""
    saved(tmp_path, 1, 2)
    with monkeypatch.context() as patch:
        patch.setattr(os, "access", lambda path, mode: os.fspath(path) != str(tmp_path / name))
        with pytest.raises(CheckpointError, match=f"{name} cannot be read: Permission denied"):
            tracked(tmp_path, value=tf.Variable(0)).restore()
    assert tracked(tmp_path, value=tf.Variable(0)).restore() == str(tmp_path / "step-2/state")


def test_if_all_checkpoints_are_damaged_none_is_removed(tmp_path):
    checkpoints = saved(tmp_path, 1, 2)
    for step in (1, 2):
        damage(tmp_path, step)
    with pytest.raises(CheckpointError, match=r"step-2/state .*damaged"):
        checkpoints.restore()
    assert checkpoints.steps == [1, 2]


@pytest.mark.parametrize(
    "state",
    [{"other": tf.Variable(1.0)}, {"value": tf.Variable([1.0, 2.0])}, {"value": tf.Variable(1)}],
    ids=["missing", "shape", "dtype"],
)
def test_a_checkpoint_of_other_objects_is_refused(tmp_path, state):
    tracked(tmp_path, value=tf.Variable(1.0)).save(1)
    with pytest.raises(CheckpointError, match="does not fit this run"):
        tracked(tmp_path, **state).restore()


@pytest.mark.parametrize(
    "owner, name",
    [(tf.train.Checkpoint, "write"), (files, "rename"), (shutil, "rmtree")],
    ids=["write", "rename", "remove"],
)
def test_a_full_disk_loses_no_checkpoint_and_leaves_no_files(tmp_path, monkeypatch, owner, name):
    checkpoints = saved(tmp_path, 1, 2)

    def fail(*arguments, **keywords):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with monkeypatch.context() as patch:
        patch.setattr(owner, name, fail)
        with pytest.raises(OSError, match="No space left"):
            checkpoints.save(3)
    assert checkpoints.steps == ([2, 3] if name == "rmtree" else [1, 2])
    checkpoints.save(3)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["step-2", "step-3"]


def test_a_run_directory_that_was_removed_is_not_created_again(tmp_path):
    checkpoints = tracked(tmp_path / "run" / "checkpoints", value=tf.Variable(0))
    with pytest.raises(FileNotFoundError):
        checkpoints.save(1)


def test_a_checkpoint_is_due_by_steps_and_by_minutes(tmp_path, monkeypatch):
    now = 0.0
    monkeypatch.setattr(module, "time", types.SimpleNamespace(monotonic=lambda: now))
    options = CheckpointOptions(checkpoint_steps=10, checkpoint_minutes=2)
    checkpoints = Checkpoints(tmp_path, options)
    checkpoints.track(value=tf.Variable(0))
    checkpoints.begin(40)
    assert not checkpoints.due(49)
    assert checkpoints.due(50)
    now = 119.0
    assert not checkpoints.due(41)
    now = 120.0
    assert checkpoints.due(41)
    checkpoints.save(41)
    assert not checkpoints.due(50)
    assert checkpoints.due(51)
    options = CheckpointOptions(checkpoint_steps=0, checkpoint_minutes=0)
    never = Checkpoints(tmp_path, options)
    now = 1e9
    assert not never.due(10**6)
    without_folder = Checkpoints(None, CheckpointOptions(checkpoint_steps=1))
    assert without_folder.save(5) is None
    assert not without_folder.due(5)


def test_a_run_continues_from_a_checkpoint_within_an_epoch(tmp_path):
    whole = tiny.trainer(chunk_size=1)
    whole.fit(2)
    options = CheckpointOptions(checkpoint_keep=9, checkpoint_steps=3)
    tiny.trainer(chunk_size=1, checkpoints=Checkpoints(tmp_path, options)).fit(2)
    assert Checkpoints(tmp_path).steps == [3, 4, 7, 8]
    for newest in (8, 7, 4):
        again = tiny.trainer(chunk_size=1, checkpoints=Checkpoints(tmp_path, options))
        damage(tmp_path, newest)
        assert again.restore()
        again.fit(2)
        for actual, expected in zip(tiny.values(again), tiny.values(whole)):
            assert (actual == expected).all()
