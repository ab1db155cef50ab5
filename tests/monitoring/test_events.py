"""Event files of runs that are interrupted and continued."""

from __future__ import annotations

import glob
import os

import numpy as np

from ccp_dml.monitoring.events import EventLog, discard_after
from ccp_dml.monitoring.tensorboard import ScalarLogger
from tests.monitoring.reading import Clock, accumulator, points


def run_epochs(directory, first: int, last: int, offset: float = 0.0) -> None:
    """Logs epochs first…last-1 of 10 steps each, as a process would that was restored at step 10·first."""
    clock = Clock(10 * first)
    logger = ScalarLogger(EventLog(str(directory), clock))
    logger.on_train_begin()
    for epoch in range(first, last):
        clock.step += 10
        logger.on_epoch_end(epoch, {"loss": epoch + offset, "step": clock.step, "val_map_at_r": epoch / 10})


def test_scalars_go_to_their_runs_at_the_global_step(tmp_path):
    run_epochs(tmp_path, 0, 3)
    assert points(tmp_path / "train", "loss/total_loss") == [(10, 0.0), (20, 1.0), (30, 2.0)]
    validation = points(tmp_path / "validation", "Retrieval/map_at_r")
    np.testing.assert_allclose(validation, [(10, 0.0), (20, 0.1), (30, 0.2)], rtol=1e-6)
    assert accumulator(tmp_path / "train").Tags()["tensors"] == ["loss/total_loss"]


def test_a_resumed_run_neither_doubles_nor_loses_points(tmp_path):
    run_epochs(tmp_path, 0, 5)
    run_epochs(tmp_path, 3, 7, offset=0.5)  # restored from the checkpoint of step 30
    expected = [(10, 0.0), (20, 1.0), (30, 2.0), (40, 3.5), (50, 4.5), (60, 5.5), (70, 6.5)]
    assert points(tmp_path / "train", "loss/total_loss") == expected


def test_a_run_that_starts_again_at_step_0_removes_all_earlier_points(tmp_path):
    run_epochs(tmp_path, 0, 5)
    run_epochs(tmp_path, 0, 1, offset=7.0)
    assert points(tmp_path / "train", "loss/total_loss") == [(10, 7.0)]


def test_begin_removes_only_event_files_and_only_once(tmp_path):
    run_epochs(tmp_path, 0, 2)
    (tmp_path / "train" / "notes.txt").write_text("kept")
    events = EventLog(str(tmp_path), Clock(0))
    events.begin()
    events.scalar("train", "a", 1.0)
    events.flush()
    events.begin()
    assert points(tmp_path / "train", "a") == [(0, 1.0)]
    assert (tmp_path / "train" / "notes.txt").read_text() == "kept"


def test_a_record_that_was_cut_off_is_removed(tmp_path):
    run_epochs(tmp_path, 0, 3)
    (file,) = glob.glob(str(tmp_path / "train" / "events*"))
    with open(file, "r+b") as handle:
        handle.truncate(os.path.getsize(file) - 7)
    discard_after(file, 1000)
    assert points(tmp_path / "train", "loss/total_loss") == [(10, 0.0), (20, 1.0)]
    assert os.listdir(tmp_path / "train") == [os.path.basename(file)]


def test_discarding_leaves_an_unaffected_file_untouched(tmp_path):
    run_epochs(tmp_path, 0, 2)
    (file,) = (tmp_path / "train").glob("events*")
    before = (file.stat().st_ino, file.read_bytes())
    discard_after(str(file), 20)
    assert (file.stat().st_ino, file.read_bytes()) == before
    discard_after(str(file), 9)
    assert not file.exists()
