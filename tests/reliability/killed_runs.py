"""Starts runs of `train.py` that are killed, and compares the files that two runs have written."""

from __future__ import annotations

import csv
import json
import math
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import tensorflow as tf

from ccp_dml.run_directory import RunDirectory
from ccp_dml.training.checkpoints import Checkpoints
from tests import ROOT

# Flags of short runs on ten classes; with those of CCP, proxies are reset early.
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
SHORT_CCP = ("--proxies_per_class=2", "--pool_size=3", "--ccp_reset_rule=patience", "--ccp_patience=1")
_TIMED = ("images_per_second", "data_wait_share")
# Imports TensorFlow once; then runs each line of standard input as a command, in a process of its own.
_SERVER = """
import contextlib, json, os, signal, sys, threading
import train
from ccp_dml import commands, environment
environment.quiet()
from ccp_dml.experiment import run
from tests.reliability.launcher import Fault
for line in sys.stdin:
    order = json.loads(line)
    child = os.fork()
    if not child:
        signal.signal(signal.SIGINT, signal.default_int_handler)  # Processes in the background ignore it.
        sys.stdout = sys.stderr
        with Fault(order["fault"]) if order["fault"] else contextlib.nullcontext():
            os._exit(commands.run(lambda: train.main(order["arguments"])))
    if order["kill_after"] is not None:
        timer = threading.Timer(order["kill_after"], os.kill, (child, signal.SIGKILL))
        timer.start()
    os.waitid(os.P_PID, child, os.WEXITED | os.WNOWAIT)  # Its number stays valid until the timer is off.
    if order["kill_after"] is not None:
        timer.cancel()
        timer.join()
    print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), flush=True)
"""


def start(
    arguments: Sequence[str], fault: str | None = None, stderr: int | None = None
) -> subprocess.Popen[bytes]:
    """Starts `train.py` in a process of its own, with a fault as `tests.reliability.launcher` takes it."""
    launcher = [] if fault is None else ["-m", "tests.reliability.launcher", fault]
    command = [sys.executable, *launcher, "train.py", *arguments]
    return subprocess.Popen(command, cwd=ROOT, stdout=subprocess.DEVNULL, stderr=stderr)


def newest_step(directory: RunDirectory) -> int:
    """Step of the newest checkpoint; 0 if there is none."""
    return max(Checkpoints(directory.checkpoints).steps, default=0)


def wait_for_step(
    process: subprocess.Popen[bytes], directory: RunDirectory, step: int, seconds: float = math.inf
) -> None:
    """Waits until the run has a checkpoint of this step or a later one, or has ended, or time is up."""
    end = time.monotonic() + seconds
    while newest_step(directory) < step and process.poll() is None and time.monotonic() < end:
        time.sleep(0.02)


def kill_at(place: str, arguments: Sequence[str]) -> None:
    """Runs `train.py`, which is killed at a place."""
    assert start(arguments, place).wait() == -signal.SIGKILL, place


class RunServer:
    """Makes runs, each in a process of its own, but imports TensorFlow only once."""

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
        """Makes a run and returns its exit code.

        Args:
            arguments: the flags.
            fault: a fault, as `tests.reliability.launcher` takes it.
            kill_after: seconds after which the run is killed, if it has not ended before.
        """
        order = {"arguments": list(arguments), "fault": fault, "kill_after": kill_after}
        print(json.dumps(order), file=self._process.stdin, flush=True)
        return int(self._process.stdout.readline())


def content(directory: RunDirectory) -> dict[str, Any]:
    """Content of the files of a finished run, without times and paths."""
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
    """Raises unless two finished runs have written the same files, bit by bit."""
    found, wanted = content(actual), content(expected)
    for name in wanted:
        assert found[name] == wanted[name], name


def _values(path: Path) -> dict[str, bytes]:
    reader = tf.train.load_checkpoint(str(path))
    names = reader.get_variable_to_shape_map()
    return {name: _bytes(reader.get_tensor(name)) for name in names if "OBJECT_GRAPH" not in name}


def _bytes(value: Any) -> bytes:
    return value if isinstance(value, bytes) else value.tobytes()


def _points(directory: Path) -> list[tuple[str, str, int, bytes]]:
    """(run, tag, step, value) of every TensorBoard point; a point that was written twice is there twice."""
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
