"""The command on real images, with a pretrained model: two replicas do what one device does."""

from __future__ import annotations

import csv
import subprocess
import sys
from pathlib import Path

import pytest

from ccp_dml.run_directory import RunDirectory
from tests import ROOT

# At ten times the rate of the configuration, P@1 falls after the first epoch by more than rounding: a reset.
FLAGS = (
    "--flagfile=configs/emoji.cfg",
    "--ccp_reset_rule=patience",
    "--ccp_patience=1",
    "--ccp_monitor=precision_at_1",
    "--learning_rate=1e-3",
    "--steps_per_epoch=4",
    "--max_epochs=3",
    "--notensorboard",
)


@pytest.mark.slow
def test_a_short_run_on_two_replicas_resets_and_scores_like_one_device(tmp_path: Path) -> None:
    resets, scores = [], []
    for name, flags in (("one", ()), ("two", ("--strategy=mirrored", "--logical_cpus=2"))):
        folders = (f"--prepared_dir={tmp_path / 'prepared'}", f"--run_dir={tmp_path / name}")
        command = [sys.executable, "train.py", *FLAGS, *folders, *flags]
        done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False, timeout=600)
        assert done.returncode == 0, done.stderr[-4000:]
        directory = RunDirectory(tmp_path / name)
        with directory.metrics.open(newline="") as file:
            instances = [int(row["problem_instance"]) for row in csv.DictReader(file)]
        resets.append(next(epoch for epoch, instance in enumerate(instances) if instance))
        scores.append(directory.read_results()["test"])
    assert resets[0] == resets[1]
    for metric in ("precision_at_1", "r_precision", "map_at_r"):
        assert abs(scores[0][metric] - scores[1][metric]) <= 0.01, metric
