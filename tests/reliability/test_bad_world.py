"""Disks that are full and folders that are gone while a run is going on: one clear line, and it can go on."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

import train
from ccp_dml import commands, faults
from ccp_dml.monitoring.console import MetricsCsv
from ccp_dml.run_directory import RunDirectory, State
from ccp_dml.run_lock import run_lock
from tests.image_folder import write_classes
from tests.reliability.killed_runs import assert_same, start, wait_for_step

RUN = (
    "--dataset=image_folder",
    "--backbone=cifar_resnet",
    "--image_size=16",
    "--embedding_size=8",
    "--loss=contrastive",
    "--proxies_per_class=0",
    "--classes_per_batch=2",
    "--samples_per_class=2",
    "--validation_fraction=0.5",
    "--steps_per_epoch=1",
    "--max_epochs=2",
)
# For what is done to a run from outside: it is certainly not over when its first checkpoint is there.
MANY_STEPS = ("--notensorboard", "--max_epochs=30", "--patience=0", "--checkpoint_steps=1")


@pytest.fixture(scope="module")
def flags(tmp_path_factory) -> tuple[str, ...]:
    root = tmp_path_factory.mktemp("images")
    return (*RUN, f"--data_dir={write_classes(root / 'source', 8)}", f"--prepared_dir={root / 'prepared'}")


def outcome(path: Path, *flags: str) -> int:
    return commands.run(lambda: train.main([*flags, f"--run_dir={path}"]))


def test_a_full_disk_is_one_line_and_the_run_goes_on(flags, tmp_path, monkeypatch, capsys, record_property):
    command = [*flags, "--notensorboard"]
    places = ("metrics.csv", "checkpoint_write", "weights", "export", "results.json")
    for place in places:
        monkeypatch.setenv(faults.VARIABLE, f"{place}:1:ENOSPC")
        assert outcome(tmp_path, *command) == commands.BAD_INPUT
        *_, line = capsys.readouterr().err.splitlines()  # Data are prepared first, and it says so.
        assert line == (
            f"error: --run_dir={tmp_path}: the disk is full; the same flags go on from the last checkpoint "
            f"once there is room: [Errno 28] No space left on device: '{place}'"
        )
        assert RunDirectory(tmp_path).state is State.UNFINISHED
    assert outcome(tmp_path, *command) == 0
    record_property("faults", len(places))


@pytest.mark.parametrize("error", ["EROFS", "EACCES"])
def test_a_folder_that_becomes_read_only(flags, tmp_path, monkeypatch, capsys, record_property, error):
    monkeypatch.setenv(faults.VARIABLE, f"metrics.csv:1:{error}")
    assert outcome(tmp_path, *flags, "--notensorboard") == commands.BAD_INPUT
    *_, line = capsys.readouterr().err.splitlines()
    assert line.startswith(
        f"error: --run_dir={tmp_path}: it can no longer be written to; once it can, the same"
    )
    record_property("faults", 1)


@pytest.mark.parametrize(
    "harm, complaint",
    [
        (shutil.rmtree, "it was removed or moved while the run was going on"),
        (lambda path: (path / "metrics.csv.partial").mkdir(), None),
    ],
    ids=["removed", "a defect"],
)
def test_a_folder_that_is_removed(flags, tmp_path, monkeypatch, capsys, record_property, harm, complaint):
    path = tmp_path / "run"
    monkeypatch.setattr(MetricsCsv, "on_train_batch_end", lambda callback, batch, logs=None: harm(path))
    if complaint is None:
        with pytest.raises(IsADirectoryError):
            outcome(path, *flags, "--notensorboard")
        return
    assert outcome(path, *flags, "--notensorboard") == commands.BAD_INPUT
    *_, line = capsys.readouterr().err.splitlines()
    assert line.startswith(f"error: --run_dir={path}: {complaint}")
    assert not path.exists()
    record_property("faults", 1)


def test_data_that_are_removed_from_under_the_command(flags, tmp_path, record_property):
    """The run has them open from its beginning, and what is open can be read."""
    prepared, run = tmp_path / "prepared", RunDirectory(tmp_path / "run")
    command = (*flags, *MANY_STEPS, f"--prepared_dir={prepared}", f"--run_dir={run.path}")
    process = start(command, stderr=subprocess.PIPE)
    wait_for_step(process, run, 1)
    shutil.rmtree(prepared)
    assert run.state is State.UNFINISHED
    _, errors = process.communicate()
    assert process.returncode == 0, errors.decode()
    assert not prepared.exists()
    record_property("faults", 1)


@pytest.mark.slow
def test_data_that_are_damaged_under_the_command(flags, tmp_path, record_property):
    """One line, again when it is started again, until the folder is deleted; then the same end."""
    prepared, run, whole = (
        tmp_path / "prepared",
        RunDirectory(tmp_path / "run"),
        RunDirectory(tmp_path / "whole"),
    )
    command = (*flags, *MANY_STEPS, f"--prepared_dir={prepared}")
    again = (*command, f"--run_dir={run.path}")

    def assert_stops(process: subprocess.Popen[bytes]) -> None:
        _, errors = process.communicate()
        *_, line = errors.decode().splitlines()
        assert process.returncode == commands.BAD_INPUT, line
        assert line.startswith(f"error: {prepared}")
        assert line.endswith("delete the folder, and they are prepared again")
        assert run.state is State.UNFINISHED

    process = start(again, stderr=subprocess.PIPE)
    wait_for_step(process, run, 1)
    for file in prepared.rglob("*.array_record*"):
        os.truncate(file, 100)
    assert_stops(process)
    assert_stops(start(again, stderr=subprocess.PIPE))
    shutil.rmtree(prepared)
    assert start(again).wait() == 0
    assert start([*command, f"--run_dir={whole.path}"]).wait() == 0
    assert_same(run, whole)
    record_property("faults", 2)


def test_a_folder_that_another_process_works_in(flags, tmp_path, capsys, record_property):
    with run_lock(tmp_path):
        assert outcome(tmp_path, *flags) == commands.BAD_INPUT
    (line,) = capsys.readouterr().err.splitlines()
    assert line.endswith("is working in it; expected another folder, or that process to end")
    record_property("faults", 1)


@pytest.fixture
def small_disk(tmp_path) -> Iterator[Path]:
    """A file system of 2 MB, where this may be made."""
    folder = tmp_path / "disk"
    folder.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", "size=2m", "tmpfs", str(folder)]
    try:
        made = subprocess.run(command, capture_output=True, check=False).returncode == 0
    except FileNotFoundError:
        made = False
    if not made:
        pytest.skip("file systems cannot be mounted here")
    yield folder
    subprocess.run(["umount", str(folder)], check=True)


@pytest.mark.slow
def test_a_disk_that_has_become_read_only(flags, small_disk, monkeypatch, capsys, record_property):
    run = small_disk / "run"
    command = (*flags, "--notensorboard")

    def mounted(options: str) -> None:
        subprocess.run(["mount", "-o", f"remount,{options}", str(small_disk)], check=True)

    mounted("size=60m")
    monkeypatch.setenv(faults.VARIABLE, "metrics.csv:1:EROFS")
    assert outcome(run, *command) == commands.BAD_INPUT
    mounted("ro")
    capsys.readouterr()
    assert outcome(run, *command) == commands.BAD_INPUT
    (line,) = capsys.readouterr().err.splitlines()
    assert line == f"error: --run_dir={run}: expected a folder; {run} is none that can be written to"
    mounted("rw")
    assert outcome(run, *command) == 0
    record_property("faults", 2)


@pytest.mark.slow
def test_the_command_on_a_small_disk(flags, small_disk, record_property):
    """The real thing: each time there is a little more room, and the run comes a little further."""
    command = [*flags, f"--run_dir={small_disk / 'run'}"]
    full = 0
    for megabytes in range(2, 60, 6):
        subprocess.run(["mount", "-o", f"remount,size={megabytes}m", str(small_disk)], check=True)
        process = start(command, stderr=subprocess.PIPE)
        _, errors = process.communicate()
        if process.returncode == 0:
            break
        *_, line = errors.decode().splitlines()
        assert process.returncode == commands.BAD_INPUT, line
        assert "disk is full" in line or "No space left on device" in line
        full += 1
    assert RunDirectory(small_disk / "run").state is State.FINISHED
    assert full > 1
    record_property("faults", full)
