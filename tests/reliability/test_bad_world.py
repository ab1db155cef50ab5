"""A full disk, or folders and data that vanish during a run: one line of error, and the run can continue."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

import train
from ccp_dml import commands
from ccp_dml.files import run_lock
from ccp_dml.monitoring.console import MetricsCsv
from ccp_dml.run_directory import RunDirectory, State
from tests.data.image_folder import write_classes
from tests.reliability import launcher
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
# A run long enough not to end while a test acts on it after the first checkpoint.
MANY_STEPS = ("--notensorboard", "--max_epochs=30", "--patience=0", "--checkpoint_steps=1")


@pytest.fixture(scope="module")
def flags(tmp_path_factory) -> tuple[str, ...]:
    root = tmp_path_factory.mktemp("images")
    return (*RUN, f"--data_dir={write_classes(root / 'source', 8)}", f"--prepared_dir={root / 'prepared'}")


def outcome(path: Path, *flags: str) -> int:
    return commands.run(lambda: train.main([*flags, f"--run_dir={path}"]))


@pytest.mark.slow
def test_a_full_disk_gives_one_line_and_the_run_can_continue(flags, tmp_path, capsys, record_property):
    command = [*flags, "--notensorboard"]
    places = ("metrics.csv", "checkpoint_write", "weights", "export", "results.json")
    for place in places:
        with launcher.Fault(f"{place}:1:ENOSPC"):
            assert outcome(tmp_path, *command) == commands.BAD_INPUT
        *_, line = capsys.readouterr().err.splitlines()  # The lines before are about the preparation of data.
        assert line == (
            f"error: --run_dir={tmp_path}: the disk is full; the same flags go on from the last checkpoint "
            f"once there is room: [Errno 28] No space left on device: '{place}'"
        )
        assert RunDirectory(tmp_path).state is State.UNFINISHED
    assert outcome(tmp_path, *command) == 0
    record_property("faults", len(places))


@pytest.mark.parametrize("error", ["EROFS", "EACCES"])
def test_a_run_directory_that_becomes_read_only(flags, tmp_path, capsys, record_property, error):
    with launcher.Fault(f"metrics.csv:1:{error}"):
        assert outcome(tmp_path, *flags, "--notensorboard") == commands.BAD_INPUT
    *_, line = capsys.readouterr().err.splitlines()
    assert line.startswith(
        f"error: --run_dir={tmp_path}: it cannot be written to any more; once it can, the same"
    )
    record_property("faults", 1)


@pytest.mark.parametrize(
    "harm, complaint",
    [
        (shutil.rmtree, "it was removed or moved while the run was going on"),
        (lambda path: (path / "metrics.csv.partial").mkdir(), "it cannot be used: [Errno 21] Is a directory"),
    ],
    ids=["removed", "another error"],
)
def test_a_run_directory_that_is_removed(
    flags, tmp_path, monkeypatch, capsys, record_property, harm, complaint
):
    path = tmp_path / "run"
    monkeypatch.setattr(MetricsCsv, "on_train_batch_end", lambda callback, batch, logs=None: harm(path))
    assert outcome(path, *flags, "--notensorboard") == commands.BAD_INPUT
    *_, line = capsys.readouterr().err.splitlines()
    assert line.startswith(f"error: --run_dir={path}: {complaint}")
    assert path.exists() is (harm is not shutil.rmtree)
    record_property("faults", 1)


@pytest.mark.slow
def test_prepared_data_may_be_removed_during_a_run(flags, tmp_path, record_property):
    """The run opens the files at its start; open files stay readable."""
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
def test_prepared_data_that_are_damaged_during_a_run(flags, tmp_path, record_property):
    """Each start gives one line until the folder of the data is deleted; then the result is the same."""
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


def test_a_run_directory_that_another_process_works_in(flags, tmp_path, capsys, record_property):
    with run_lock(tmp_path):
        assert outcome(tmp_path, *flags) == commands.BAD_INPUT
    (line,) = capsys.readouterr().err.splitlines()
    assert line.endswith("is working in it; expected another folder, or that process to end")
    record_property("faults", 1)


@pytest.fixture
def small_disk(tmp_path) -> Iterator[Path]:
    """The folder of a file system of 2 MB; skips the test where none can be mounted."""
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
def test_a_disk_that_becomes_read_only(flags, small_disk, capsys, record_property):
    run = small_disk / "run"
    command = (*flags, "--notensorboard")

    def mounted(options: str) -> None:
        subprocess.run(["mount", "-o", f"remount,{options}", str(small_disk)], check=True)

    mounted("size=60m")
    with launcher.Fault("metrics.csv:1:EROFS"):
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
def test_a_run_continues_as_a_small_disk_grows(flags, small_disk, record_property):
    """With a little more room each time, the run gets a little further."""
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
