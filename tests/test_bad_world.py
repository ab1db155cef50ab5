"""Disks that are full and folders that are gone while a run is going on: one clear line, and it can go on."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

import train
from ccp_dml import commands, faults
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


def test_a_full_disk_is_one_line_and_the_run_goes_on(flags, tmp_path, monkeypatch, capsys):
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
    print(f"{len(places)} full disks survived")


@pytest.mark.parametrize("error", ["EROFS", "EACCES"])
def test_a_folder_that_becomes_read_only(flags, tmp_path, monkeypatch, capsys, error):
    monkeypatch.setenv(faults.VARIABLE, f"metrics.csv:1:{error}")
    assert outcome(tmp_path, *flags, "--notensorboard") == commands.BAD_INPUT
    *_, line = capsys.readouterr().err.splitlines()
    assert line.startswith(
        f"error: --run_dir={tmp_path}: it can no longer be written to; once it can, the same"
    )


@pytest.mark.parametrize(
    "harm, complaint",
    [
        (shutil.rmtree, "it was removed or moved while the run was going on"),
        (lambda path: (path / "metrics.csv.partial").mkdir(), None),
    ],
    ids=["removed", "a defect"],
)
def test_a_folder_that_is_removed(flags, tmp_path, monkeypatch, capsys, harm, complaint):
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


def test_a_folder_that_another_process_works_in(flags, tmp_path, capsys):
    with run_lock(tmp_path):
        assert outcome(tmp_path, *flags) == commands.BAD_INPUT
    (line,) = capsys.readouterr().err.splitlines()
    assert line.endswith("is working in it; expected another folder, or that process to end")


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
def test_the_command_on_a_small_disk(flags, small_disk):
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
    print(f"{full} full disks survived")
