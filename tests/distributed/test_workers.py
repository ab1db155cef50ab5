"""Two workers that talk over the loopback interface train what one process does."""

from __future__ import annotations

import contextlib
import json
import os
import pickle
import socket
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf

from tests.distributed.division import assert_read_once, assert_same_work, divided_work
from tests.distributed.runs import run
from tests.distributed.worker import CASE, STEPS

_ROOT = Path(__file__).parents[2]


def free_addresses(count: int) -> list[str]:
    with contextlib.ExitStack() as stack:
        sockets = [stack.enter_context(socket.socket()) for _ in range(count)]
        for found in sockets:
            found.bind(("localhost", 0))
        return [f"localhost:{found.getsockname()[1]}" for found in sockets]


def run_workers(module: str, folder: Path) -> list[Path]:
    """Runs two workers to their end; returns the files that they were told to write."""
    addresses = free_addresses(2)
    files = [folder / str(index) for index in range(2)]
    workers = []
    for index, file in enumerate(files):
        config = {"cluster": {"worker": addresses}, "task": {"type": "worker", "index": index}}
        environment = {**os.environ, "TF_CONFIG": json.dumps(config)}
        command = [sys.executable, "-m", module, str(file)]
        workers.append(
            subprocess.Popen(command, cwd=_ROOT, env=environment, stderr=subprocess.PIPE, text=True)
        )
    try:
        for worker in workers:
            _, errors = worker.communicate(timeout=300)
            assert worker.returncode == 0, errors[-4000:]
    finally:
        for worker in workers:
            worker.kill()
    return files


def test_two_workers_divide_evaluation_and_choose_the_same_proxies(tmp_path: Path) -> None:
    files = run_workers("tests.distributed.division_worker", tmp_path)
    results = [pickle.loads(file.read_bytes()) for file in files]
    for number, queries in enumerate((7, 1)):
        first, second = (works[number] for works, *_ in results)
        expected = divided_work(None, queries)
        assert_same_work(first, expected)
        for mine, other in zip(first.numbers, second.numbers):
            np.testing.assert_array_equal(mine, other)
        assert_read_once({name: [*first.read[name], *second.read[name]] for name in first.read}, queries)
        assert len(first.read["pool"]) == 12  # Three of five classes, four images each.

    for _, told, (unequal, empty, plain), columns in results:
        assert [found["index"] for found in told] == [0, 1]
        assert all(np.isnan(found["score"]) and found["third"] == 1 / 3 for found in told)
        np.testing.assert_array_equal(unequal, np.arange(6).reshape(3, 2) - 2**40)
        assert empty.shape == (0, 2)
        np.testing.assert_array_equal(plain, np.arange(0, 6, 2) - 2**40)
        np.testing.assert_array_equal(columns, np.arange(24.0).reshape(2, 4, 3))


@pytest.mark.slow
def test_two_workers_train_what_one_does(tmp_path: Path) -> None:
    files = run_workers("tests.distributed.worker", tmp_path)
    expected = run(tf.distribute.get_strategy(), CASE, STEPS)
    values = [*expected.values, *(gradient for step in expected.gradients for gradient in step)]
    first, second = (list(np.load(file.with_suffix(".npz")).values()) for file in files)
    assert len(first) == len(values)
    for mine, other, alone in zip(first, second, values):
        np.testing.assert_array_equal(mine, other)
        assert np.linalg.norm(mine - alone) <= 1e-5 * np.linalg.norm(alone)


@pytest.mark.slow
def test_two_workers_with_sharded_proxies_train_what_one_device_does(tmp_path: Path) -> None:
    files = run_workers("tests.distributed.sharded_training_worker", tmp_path)
    first, second = (np.load(file.with_suffix(".npz")) for file in files)
    names = [name.removeprefix("alone ") for name in first.files if name.startswith("alone ")]
    assert {"proxies", "best proxies", "images", "proxy_staleness"} <= set(names)
    for name in names:
        np.testing.assert_array_equal(first[name], second[name], err_msg=name)
        np.testing.assert_allclose(first[name], first[f"alone {name}"], rtol=1e-5, atol=1e-5, err_msg=name)
