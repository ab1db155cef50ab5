"""Two workers that talk over the loopback interface train what one process does."""

from __future__ import annotations

import contextlib
import json
import os
import socket
import subprocess
import sys
from pathlib import Path

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


@pytest.mark.slow
def test_two_workers_train_what_one_does(tmp_path: Path) -> None:
    addresses = free_addresses(2)
    files = [tmp_path / f"{index}.npz" for index in range(2)]
    workers = []
    for index, file in enumerate(files):
        config = {"cluster": {"worker": addresses}, "task": {"type": "worker", "index": index}}
        command = [sys.executable, "-m", "tests.distributed.worker", str(file)]
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

    expected = run(tf.distribute.get_strategy(), CASE, STEPS)
    values = [*expected.values, *(gradient for step in expected.gradients for gradient in step)]
    first, second = (list(np.load(file).values()) for file in files)
    assert len(first) == len(values)
    for mine, other, alone in zip(first, second, values):
        np.testing.assert_array_equal(mine, other)
        assert np.linalg.norm(mine - alone) <= 1e-5 * np.linalg.norm(alone)
