"""Runs of the command by two workers: equality to one process, kills, and continuation."""

from __future__ import annotations

import contextlib
import csv
import json
import signal
import socket
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from ccp_dml.run_directory import RunDirectory
from tests import ROOT
from tests.data.image_folder import write_classes
from tests.distributed.processes import Done, outcome, run_workers, started
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
    """A run by two workers without any fault."""
    folder = tmp_path_factory.mktemp("two") / "run"
    flags = [*data, f"--run_dir={folder}"]
    first, second = by_workers(flags, flags)
    assert (first.returncode, second.returncode) == (0, 0), first.stderr + second.stderr
    assert not second.stdout
    return RunDirectory(folder)


@pytest.fixture(scope="module")
def by_one(data: list[str], tmp_path_factory: pytest.TempPathFactory) -> RunDirectory:
    folder = tmp_path_factory.mktemp("one") / "run"
    assert by_one_process([*data, f"--run_dir={folder}"]) == 0
    return RunDirectory(folder)


def training(*flags: str, fault: str | None = None) -> list[str]:
    """Returns the arguments of Python for the command, with a fault as the launcher takes it."""
    launcher = [] if fault is None else ["-m", "tests.reliability.launcher", fault]
    return [*launcher, "train.py", *RUN, *flags]


def by_one_process(flags: list[str], fault: str | None = None) -> int:
    """Runs the command in one process; returns its exit code."""
    command = [sys.executable, *training(*flags, fault=fault)]
    return subprocess.run(command, cwd=ROOT, capture_output=True, check=False).returncode


def workers(
    *flags: list[str], fault: tuple[int, str] | None = None
) -> contextlib.AbstractContextManager[list[subprocess.Popen[str]]]:
    """Starts the command on workers, each with its flags; `fault` is the number of a worker and its fault."""
    number, setting = fault or (None, None)
    return started(
        *(
            training("--strategy=multi_worker", *local, fault=setting if index == number else None)
            for index, local in enumerate(flags)
        )
    )


def by_workers(*flags: list[str], fault: tuple[int, str] | None = None) -> list[Done]:
    """Runs the command on workers and waits for their ends."""
    with workers(*flags, fault=fault) as processes:
        return [outcome(process) for process in processes]


def rows(directory: RunDirectory) -> list[dict[str, str]]:
    with directory.metrics.open(newline="") as file:
        return list(csv.DictReader(file))


def assert_alike(found: RunDirectory, expected: RunDirectory) -> None:
    """Raises unless losses, resets and scores of two runs are equal within rounding."""
    found_rows, expected_rows = rows(found), rows(expected)
    assert [row["epoch"] for row in found_rows] == ["0", "1", "2"]
    instances = [row["problem_instance"] for row in found_rows]
    assert instances == [row["problem_instance"] for row in expected_rows]
    assert instances[-1] != "0"
    for name in ("loss", "gradient_norm", "val_map_at_r"):
        values, wanted = ([float(row[name]) for row in table] for table in (found_rows, expected_rows))
        # Batch normalisation on replicas computes its variance by another formula.
        np.testing.assert_allclose(values, wanted, rtol=1e-2, err_msg=name)
    for name in ("test", "validation", "frozen_features"):
        scores, wanted = (run.read_results()[name]["map_at_r"] for run in (found, expected))
        assert abs(scores - wanted) <= 0.01


def test_a_run_of_two_workers_equals_that_of_one_process(by_two: RunDirectory, by_one: RunDirectory) -> None:
    assert_alike(by_two, by_one)
    names = [{path.name for path in run.path.iterdir()} for run in (by_two, by_one)]
    assert names[0] == names[1]
    assert [path.name for path in by_two.path.parent.iterdir()] == [by_two.path.name]
    events = [len(list(run.tensorboard.rglob("*tfevents*"))) for run in (by_two, by_one)]
    assert events[0] == events[1]


@pytest.mark.parametrize("killed", [0, 1])
def test_after_a_kill_of_a_worker_the_run_continues_bit_by_bit(
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
def test_a_frozen_worker_is_noticed(frozen: int, data: list[str], tmp_path: Path) -> None:
    flags = [*data, f"--run_dir={tmp_path / 'run'}"]
    with workers(flags, flags, fault=(frozen, "step:2:SIGSTOP")) as processes:
        assert_stopped(outcome(processes[1 - frozen]))
        assert processes[frozen].poll() is None


def assert_stopped(worker: Done) -> None:
    """Raises unless a worker has reported in one line that another one has ended."""
    assert worker.returncode == 2
    [message] = [line for line in worker.stderr.splitlines() if line.startswith("error: ")]
    assert LOST in message
    assert "Traceback" not in worker.stderr


@pytest.mark.parametrize(
    "first, second, of_two", [(2, 1, []), (1, 2, []), (2, 1, ["--shard_proxies"])], ids=str
)
def test_a_run_continues_with_another_number_of_workers(
    first: int, second: int, of_two: list[str], data: list[str], by_one: RunDirectory, tmp_path: Path
) -> None:
    flags = [*data, f"--run_dir={tmp_path / 'run'}"]
    # A signal to one worker stops both, after the first epoch.
    for number, fault, code in ((first, "step:1:SIGTERM", 130), (second, None, 0)):
        if number == 1:
            assert by_one_process(flags, fault) == code
        else:
            told = None if fault is None else (1, fault)
            both = [*flags, *of_two]
            assert [worker.returncode for worker in by_workers(both, both, fault=told)] == [code, code]
    assert_alike(RunDirectory(tmp_path / "run"), by_one)


def test_a_port_that_is_taken_is_reported_in_one_line(data: list[str], tmp_path: Path) -> None:
    with socket.create_server(("localhost", 0)) as taken:
        address = f"localhost:{taken.getsockname()[1]}"
        config = {"cluster": {"worker": [address, "localhost:1"]}, "task": {"type": "worker", "index": 0}}
        told = {0: {"TF_CONFIG": json.dumps(config)}}
        command = training("--strategy=multi_worker", *data, f"--run_dir={tmp_path / 'run'}")
        [done] = run_workers(command, environments=told)
    assert done.returncode == 2
    assert "error: --strategy=multi_worker: worker 0 cannot join the others; expected its port" in done.stderr
    assert "Traceback" not in done.stderr


def test_a_worker_that_does_not_see_the_checkpoint_reports_it(data: list[str], tmp_path: Path) -> None:
    flags = [[*data, f"--run_dir={tmp_path / str(index) / 'run'}"] for index in range(2)]
    stopped = by_workers(*flags, fault=(0, "step:2:SIGTERM"))
    assert [worker.returncode for worker in stopped] == [130, 130]
    assert not (tmp_path / "1").exists()
    again = by_workers(*flags)
    assert [worker.returncode for worker in again] == [2, 2]
    for worker in again:
        assert "worker 1 cannot read the checkpoint" in worker.stderr
