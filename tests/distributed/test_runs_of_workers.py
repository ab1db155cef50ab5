"""Whole runs by two worker processes: one run directory, the results of one process, kills."""

from __future__ import annotations

import contextlib
import csv
import json
import os
import signal
import socket
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from ccp_dml import faults
from ccp_dml.run_directory import RunDirectory
from tests import ROOT
from tests.distributed.processes import Done, outcome, run_workers, started
from tests.image_folder import write_classes
from tests.reliability.killed_runs import SHORT_CCP, SHORT_RUN, assert_same

RUN = (*SHORT_RUN, *SHORT_CCP, "--loss=ccp/contrastive", "--max_epochs=3")
LOST = "another worker has ended or cannot be reached"

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    folder = tmp_path_factory.mktemp("data")
    write_classes(folder / "images", 10)
    return [f"--data_dir={folder / 'images'}", f"--prepared_dir={folder / 'prepared'}"]


@pytest.fixture(scope="module")
def by_two(data: list[str], tmp_path_factory: pytest.TempPathFactory) -> RunDirectory:
    """A run by two workers that nothing has disturbed."""
    folder = tmp_path_factory.mktemp("two") / "run"
    flags = [*data, f"--run_dir={folder}"]
    first, second = by_workers(flags, flags)
    assert (first.returncode, second.returncode) == (0, 0), first.stderr + second.stderr
    assert not second.stdout
    return RunDirectory(folder)


@pytest.fixture(scope="module")
def by_one(data: list[str], tmp_path_factory: pytest.TempPathFactory) -> RunDirectory:
    folder = tmp_path_factory.mktemp("one") / "run"
    assert alone([*data, f"--run_dir={folder}"]) == 0
    return RunDirectory(folder)


def alone(flags: list[str], fault: str | None = None) -> int:
    environment = os.environ | ({} if fault is None else {faults.VARIABLE: fault})
    command = [sys.executable, "train.py", *RUN, *flags]
    return subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, check=False).returncode


def workers(
    *flags: list[str], fault: tuple[int, str] | None = None
) -> contextlib.AbstractContextManager[list[subprocess.Popen[str]]]:
    """Starts the real command on workers with these flags; something may happen to one at a place."""
    commands = [["train.py", *RUN, "--strategy=multi_worker", *own] for own in flags]
    return started(*commands, environments={} if fault is None else {fault[0]: {faults.VARIABLE: fault[1]}})


def by_workers(*flags: list[str], fault: tuple[int, str] | None = None) -> list[Done]:
    """The same, to their ends."""
    with workers(*flags, fault=fault) as processes:
        return [outcome(process) for process in processes]


def rows(directory: RunDirectory) -> list[dict[str, str]]:
    with directory.metrics.open(newline="") as file:
        return list(csv.DictReader(file))


def assert_alike(found: RunDirectory, expected: RunDirectory) -> None:
    """The same course within rounding: losses, resets, scores."""
    mine, other = rows(found), rows(expected)
    assert [row["epoch"] for row in mine] == ["0", "1", "2"]
    instances = [row["problem_instance"] for row in mine]
    assert instances == [row["problem_instance"] for row in other]
    assert instances[-1] != "0"
    for name in ("loss", "gradient_norm", "val_map_at_r"):
        values, wanted = ([float(row[name]) for row in table] for table in (mine, other))
        # The moving variances of batch normalisation are those of other formulas.
        np.testing.assert_allclose(values, wanted, rtol=1e-2, err_msg=name)
    for part in ("test", "validation", "frozen_features"):
        scores, wanted = (run.read_results()[part]["map_at_r"] for run in (found, expected))
        assert abs(scores - wanted) <= 0.01


def test_two_workers_write_one_run_which_is_that_of_one_process(
    by_two: RunDirectory, by_one: RunDirectory
) -> None:
    assert_alike(by_two, by_one)
    names = [{path.name for path in run.path.iterdir()} for run in (by_two, by_one)]
    assert names[0] == names[1]
    assert [path.name for path in by_two.path.parent.iterdir()] == [by_two.path.name]
    events = [len(list(run.tensorboard.rglob("*tfevents*"))) for run in (by_two, by_one)]
    assert events[0] == events[1]


@pytest.mark.parametrize("killed", [0, 1])
def test_a_worker_is_killed_and_the_run_goes_on_bit_by_bit(
    killed: int, data: list[str], by_two: RunDirectory, tmp_path: Path
) -> None:
    flags = [*data, f"--run_dir={tmp_path / 'run'}"]
    done = by_workers(flags, flags, fault=(killed, "step:2"))
    assert done[killed].returncode == -signal.SIGKILL
    assert_stopped(done[1 - killed])
    assert [path.name for path in RunDirectory(tmp_path / "run").checkpoints.iterdir()] == ["step-3"]

    assert [worker.returncode for worker in by_workers(flags, flags)] == [0, 0]
    assert_same(RunDirectory(tmp_path / "run"), by_two)


@pytest.mark.parametrize("frozen", [0, 1])
def test_a_worker_whose_process_stands_still_is_noticed(frozen: int, data: list[str], tmp_path: Path) -> None:
    flags = [*data, f"--run_dir={tmp_path / 'run'}"]
    with workers(flags, flags, fault=(frozen, "step:2:SIGSTOP")) as processes:
        assert_stopped(outcome(processes[1 - frozen]))
        assert processes[frozen].poll() is None


def assert_stopped(worker: Done) -> None:
    """It said in one line that another one has ended."""
    assert worker.returncode == 2
    [message] = [line for line in worker.stderr.splitlines() if line.startswith("error: ")]
    assert LOST in message
    assert "Traceback" not in worker.stderr


@pytest.mark.parametrize(
    "first, second, of_two", [(2, 1, []), (1, 2, []), (2, 1, ["--shard_proxies"])], ids=str
)
def test_a_run_goes_on_with_another_number_of_workers(
    first: int, second: int, of_two: list[str], data: list[str], by_one: RunDirectory, tmp_path: Path
) -> None:
    flags = [*data, f"--run_dir={tmp_path / 'run'}"]
    # A signal to one worker stops both after the first epoch.
    for number, fault, code in ((first, "step:1:SIGTERM", 130), (second, None, 0)):
        if number == 1:
            assert alone(flags, fault) == code
        else:
            told = None if fault is None else (1, fault)
            both = [*flags, *of_two]
            assert [worker.returncode for worker in by_workers(both, both, fault=told)] == [code, code]
    assert_alike(RunDirectory(tmp_path / "run"), by_one)


def test_a_port_that_is_taken_is_said_in_one_line(data: list[str], tmp_path: Path) -> None:
    with socket.create_server(("localhost", 0)) as taken:
        address = f"localhost:{taken.getsockname()[1]}"
        config = {"cluster": {"worker": [address, "localhost:1"]}, "task": {"type": "worker", "index": 0}}
        told = {0: {"TF_CONFIG": json.dumps(config)}}
        command = ["train.py", *RUN, "--strategy=multi_worker", *data, f"--run_dir={tmp_path / 'run'}"]
        [done] = run_workers(command, environments=told)
    assert done.returncode == 2
    assert "error: --strategy=multi_worker: worker 0 cannot join the others; expected its port" in done.stderr
    assert "Traceback" not in done.stderr


def test_a_worker_that_does_not_see_the_checkpoint_says_so(data: list[str], tmp_path: Path) -> None:
    flags = [[*data, f"--run_dir={tmp_path / str(index) / 'run'}"] for index in range(2)]
    stopped = by_workers(*flags, fault=(0, "step:2:SIGTERM"))
    assert [worker.returncode for worker in stopped] == [130, 130]
    assert not (tmp_path / "1").exists()
    again = by_workers(*flags)
    assert [worker.returncode for worker in again] == [2, 2]
    for worker in again:
        assert "worker 1 cannot read the checkpoint" in worker.stderr
