"""Disks that are full and folders that are gone while a run is going on: one clear line, and it can go on."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

import train
from ccp_dml import commands, faults
from ccp_dml.data.prepared import PreparedRecords
from ccp_dml.run_directory import RunDirectory, State
from ccp_dml.run_lock import run_lock
from ccp_dml.training.metrics_csv import MetricsCsv
from tests.image_folder import write_classes
from tests.killed_runs import start

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


def test_data_that_are_removed(flags, tmp_path, monkeypatch, capsys, record_property):
    """What the run has open can still be read; should it not, that is one line, and the run goes on."""
    prepared, run = tmp_path / "prepared", tmp_path / "run"
    command = (*flags, "--notensorboard", f"--prepared_dir={prepared}", f"--run_dir={run}")

    def remove(callback, batch, logs=None):
        shutil.rmtree(prepared, ignore_errors=True)

    def fail(records, rows):
        raise records._damaged("gone")

    with monkeypatch.context() as patch:
        patch.setattr(MetricsCsv, "on_train_batch_end", remove)
        patch.setattr(MetricsCsv, "on_train_end", lambda *_: patch.setattr(PreparedRecords, "records", fail))
        assert commands.run(lambda: train.main(command)) == commands.BAD_INPUT
    *_, line = capsys.readouterr().err.splitlines()
    assert line.startswith(f"error: {prepared}")
    assert "the prepared data are damaged or were removed (gone)" in line
    assert commands.run(lambda: train.main(command)) == 0
    record_property("faults", 1)


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
