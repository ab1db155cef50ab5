"""Two workers that talk over the loopback interface train what one process does."""

from __future__ import annotations

import contextlib
import json
import os
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tensorflow as tf

from tests.distributed.runs import run
from tests.distributed.worker import CASE, STEPS

_ROOT = Path(__file__).parents[2]


def free_addresses(count: int) -> list[str]:
    with contextlib.ExitStack() as stack:
        sockets = [stack.enter_context(socket.socket()) for _ in range(count)]
        for found in sockets:
            found.bind(("localhost", 0))
        return [f"localhost:{found.getsockname()[1]}" for found in sockets]


def outcomes(module: str, folder: Path) -> list[Any]:
    """What each of two workers writes, which run the same module."""
    addresses = free_addresses(2)
    files = [folder / f"{index}.npz" for index in range(2)]
    workers = []
    for index, file in enumerate(files):
        config = {"cluster": {"worker": addresses}, "task": {"type": "worker", "index": index}}
        command = [sys.executable, "-m", module, str(file)]
        environment = {**os.environ, "TF_CONFIG": json.dumps(config)}
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
    return [np.load(file) for file in files]


@pytest.mark.slow
def test_two_workers_train_what_one_does(tmp_path: Path) -> None:
    first, second = (list(found.values()) for found in outcomes("tests.distributed.worker", tmp_path))
    expected = run(tf.distribute.get_strategy(), CASE, STEPS)
    values = [*expected.values, *(gradient for step in expected.gradients for gradient in step)]
    assert len(first) == len(values)
    for mine, other, alone in zip(first, second, values):
        np.testing.assert_array_equal(mine, other)
        assert np.linalg.norm(mine - alone) <= 1e-5 * np.linalg.norm(alone)


@pytest.mark.slow
def test_two_workers_with_sharded_proxies_train_what_one_device_does(tmp_path: Path) -> None:
    first, second = outcomes("tests.distributed.sharded_training_worker", tmp_path)
    names = [name.removeprefix("alone ") for name in first.files if name.startswith("alone ")]
    assert {"proxies", "best proxies", "images", "proxy_staleness"} <= set(names)
    for name in names:
        np.testing.assert_array_equal(first[name], second[name], err_msg=name)
        np.testing.assert_allclose(first[name], first[f"alone {name}"], rtol=1e-5, atol=1e-5, err_msg=name)
