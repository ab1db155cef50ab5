"""Runs of `train.py` that are killed, and the comparison of what two runs have left behind."""

from __future__ import annotations

import csv
import json
import math
import os
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import tensorflow as tf

from ccp_dml import faults
from ccp_dml.run_directory import RunDirectory
from ccp_dml.training.checkpoints import Checkpoints

ROOT = Path(__file__).parents[2]
# What runs to be killed and compared share: short ones on ten classes; with CCP their first reset is early.
SHORT_RUN = (
    "--dataset=image_folder",
    "--backbone=cifar_resnet",
    "--backbone_options=stages=1,block_repeats=1",
    "--image_size=16",
    "--embedding_size=8",
    "--classes_per_batch=3",
    "--samples_per_class=2",
    "--validation_fraction=0.4",
    "--steps_per_epoch=3",
    "--learning_rate=1e-3",
    "--recall_at=1",
)
SHORT_CCP = ("--proxies_per_class=2", "--pool_size=3", "--ccp_patience=1")
_TIMED = ("images_per_second", "data_wait_share")
# Imports TensorFlow once; then each line of standard input is a run in a process of its own.
_SERVER = """
import json, os, signal, sys, threading
import train
from ccp_dml import commands, environment
environment.quiet()
from ccp_dml.experiment import run
for line in sys.stdin:
    order = json.loads(line)
    child = os.fork()
    if not child:
        os.environ.update(order["environment"])
        signal.signal(signal.SIGINT, signal.default_int_handler)  # Also in the background.
        sys.stdout = sys.stderr
        os._exit(commands.run(lambda: train.main(order["arguments"])))
    if order["kill_after"] is not None:
        timer = threading.Timer(order["kill_after"], os.kill, (child, signal.SIGKILL))
        timer.start()
    os.waitid(os.P_PID, child, os.WEXITED | os.WNOWAIT)  # Still a child that can be sent a signal.
    if order["kill_after"] is not None:
        timer.cancel()
        timer.join()
    print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), flush=True)
"""


def start(
    arguments: Sequence[str], fault: str | None = None, stderr: int | None = None
) -> subprocess.Popen[bytes]:
    """Starts the real command, which dies at the given place."""
    environment = os.environ | ({} if fault is None else {faults.VARIABLE: fault})
    command = [sys.executable, "train.py", *arguments]
    return subprocess.Popen(command, cwd=ROOT, env=environment, stdout=subprocess.DEVNULL, stderr=stderr)


def newest_step(directory: RunDirectory) -> int:
    """The step of the last whole checkpoint, 0 if there is none."""
    return max(Checkpoints(directory.checkpoints).steps, default=0)


def wait_for_step(
    process: subprocess.Popen[bytes], directory: RunDirectory, step: int, seconds: float = math.inf
) -> None:
    """Waits until a run has a checkpoint of this step or a later one, has ended, or the time is over."""
    end = time.monotonic() + seconds
    while newest_step(directory) < step and process.poll() is None and time.monotonic() < end:
        time.sleep(0.02)


def killed_at(arguments: Sequence[str], fault: str) -> bool:
    """Runs the real command until it has died at the place; False if it has ended without coming by."""
    code = start(arguments, fault).wait()
    assert code in (0, -signal.SIGKILL), code
    return code != 0


class RunServer:
    """Starts runs without importing TensorFlow each time; every run is a process of its own."""

    def __enter__(self) -> RunServer:
        self._process = subprocess.Popen(
            [sys.executable, "-c", _SERVER],
            cwd=ROOT,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        return self

    def __exit__(self, *_: object) -> None:
        self._process.stdin.close()
        self._process.wait()
        self._process.stdout.close()

    def run(self, arguments: Sequence[str], fault: str | None = None, kill_after: float | None = None) -> int:
        """Makes a run; returns its exit code.

        Args:
            arguments: the flags.
            fault: the place where it dies.
            kill_after: seconds after which it is killed, if it has not ended before.
        """
        environment = {} if fault is None else {faults.VARIABLE: fault}
        order = {"arguments": list(arguments), "environment": environment, "kill_after": kill_after}
        print(json.dumps(order), file=self._process.stdin, flush=True)
        return int(self._process.stdout.readline())


def remains(directory: RunDirectory) -> dict[str, Any]:
    """Everything that a finished run has left behind and that must be the same, bit by bit."""
    newest = directory.checkpoints / f"step-{newest_step(directory)}"
    with directory.metrics.open(newline="") as file:
        rows = [
            {name: text for name, text in row.items() if name not in _TIMED} for row in csv.DictReader(file)
        ]
    results = directory.read_results()
    for measured in ("seconds", "time_shares"):
        results.pop(measured)
    results["config"].pop("run_dir")
    return {
        "last state": _values(newest / "state"),
        "best weights": _values(directory.checkpoints / "best"),
        "exported weights": _values(directory.saved_model / "variables" / "variables"),
        "metrics.csv": rows,
        "results.json": results,
        "TensorBoard": _points(directory.tensorboard),
        "files": sorted(path.name for path in directory.path.iterdir()),
    }


def assert_same(actual: RunDirectory, expected: RunDirectory) -> None:
    """Compares what two runs have left behind."""
    found, wanted = remains(actual), remains(expected)
    for name in wanted:
        assert found[name] == wanted[name], name


def _values(path: Path) -> dict[str, bytes]:
    reader = tf.train.load_checkpoint(str(path))
    names = reader.get_variable_to_shape_map()
    return {name: _bytes(reader.get_tensor(name)) for name in names if "OBJECT_GRAPH" not in name}


def _bytes(value: Any) -> bytes:
    return value if isinstance(value, bytes) else value.tobytes()


def _points(directory: Path) -> list[tuple[str, str, int, bytes]]:
    """(run, tag, step, value) of every point, doubled ones included."""
    points = []
    for path in directory.rglob("*tfevents*"):
        for record in tf.data.TFRecordDataset(str(path)).as_numpy_iterator():
            event = tf.compat.v1.Event.FromString(record)
            points += [
                (path.parent.name, value.tag, event.step, value.tensor.SerializeToString())
                for value in event.summary.value
                if not value.tag.endswith(_TIMED) and not value.tag.startswith("_hparams_")
            ]
    return sorted(points)
