from __future__ import annotations

import csv
import os
import signal

import numpy as np
import pytest
import tensorflow as tf

from ccp_dml.training.checkpoints import CheckpointError, Checkpoints
from ccp_dml.training.interruption import Interrupted, StopRequest
from ccp_dml.training.metrics_csv import MetricsCsv
from tests.training import tiny

EPOCHS = 5


class SignalAt(tf.keras.callbacks.Callback):
    """Sends the process a signal at the end of a chunk."""

    def __init__(self, run, step: int, number: int = signal.SIGINT) -> None:
        super().__init__()
        self._run, self._step, self._number = run, step, number

    def on_train_batch_end(self, batch, logs=None):
        if int(self._run.step) == self._step:
            os.kill(os.getpid(), self._number)


def _state(run) -> list[np.ndarray]:
    variables = {v.ref(): v for part in run.state.values() for v in _variables(part)}
    return [variable.numpy() for variable in variables.values()]


def _variables(part):
    return [part] if isinstance(part, tf.Variable) else part.variables


def _rows(path) -> list[dict]:
    with path.open() as file:
        return [{k: v for k, v in row.items() if k != "images_per_second"} for row in csv.DictReader(file)]


@pytest.mark.parametrize(
    "optimizer, stop_at, number, averages, warm_up",
    [
        # Seven steps of warm-up: the run stops where it ends, inside an epoch.
        ("adam", 7, signal.SIGINT, None, (1.75, 0.5)),
        ("radam", 8, signal.SIGTERM, {"attraction": 0.1, "repulsion": 1e-3, "decay": 0.9}, None),
        pytest.param("adamw", 3, signal.SIGINT, None, None, marks=pytest.mark.slow),
    ],
)
def test_interrupted_run_ends_like_an_uninterrupted_one(
    tmp_path, optimizer, stop_at, number, averages, warm_up
):
    options = {"optimizer": optimizer, "averages": averages, "warm_up": warm_up}
    whole = tiny.trainer(**options, callbacks=[MetricsCsv(tmp_path / "whole.csv")])
    whole.fit(EPOCHS)

    def part():
        log = MetricsCsv(tmp_path / "parts.csv")
        checkpoints = Checkpoints(tmp_path / "ckpt")
        return tiny.trainer(**options, checkpoints=checkpoints, callbacks=[log])

    first = part()
    first._callbacks.append(SignalAt(first, stop_at, number))
    with pytest.raises(Interrupted, match=f"step {stop_at}.*same command continues") as stopped:
        first.fit(EPOCHS)
    assert stopped.value.checkpoint is not None
    second = part()
    assert second.restore()
    assert int(second.step) == stop_at
    second.fit(EPOCHS)

    for actual, expected in zip(_state(second), _state(whole)):
        np.testing.assert_array_equal(actual, expected)
    assert int(second.state["projections"].instance) >= 1
    assert _rows(tmp_path / "parts.csv") == _rows(tmp_path / "whole.csv")


def test_finished_run_stays_finished(tmp_path):
    first = tiny.trainer(patience=1, checkpoints=Checkpoints(tmp_path))
    first.fit(20)
    second = tiny.trainer(patience=1, checkpoints=Checkpoints(tmp_path))
    second.restore()
    assert second.fit(20) == {}
    assert int(first.step) == int(second.step) < 80
    for actual, expected in zip(tiny.values(second), tiny.values(first)):
        np.testing.assert_array_equal(actual, expected)


def test_second_signal_acts_at_once():
    with pytest.raises(KeyboardInterrupt), StopRequest() as request:  # noqa: PT012
        os.kill(os.getpid(), signal.SIGINT)
        assert request.requested
        os.kill(os.getpid(), signal.SIGINT)
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


def test_without_folder_the_message_says_so():
    run = tiny.trainer()
    run._callbacks.append(SignalAt(run, 3))
    with pytest.raises(Interrupted, match="step 3, not saved"):
        run.fit(2)


def _tracked(directory, **state) -> Checkpoints:
    checkpoints = Checkpoints(directory, keep=2)
    checkpoints.track(**state)
    return checkpoints


def test_checkpoints_keep_the_last_and_restore_the_newest(tmp_path):
    value = tf.Variable(0)
    checkpoints = _tracked(tmp_path, value=value)
    assert checkpoints.restore() is None
    for step in (1, 2, 3, 3):
        value.assign(step * 10)
        path = checkpoints.save(step)
    assert path.endswith("ckpt-3")
    assert sorted(p.name for p in tmp_path.glob("*.index")) == ["ckpt-2.index", "ckpt-3.index"]
    other = tf.Variable(0)
    assert _tracked(tmp_path, value=other).restore() == path
    assert int(other) == 30


@pytest.mark.parametrize(
    "state",
    [{"other": tf.Variable(1.0)}, {"value": tf.Variable([1.0, 2.0])}, {"value": tf.Variable(1)}],
    ids=["missing", "shape", "dtype"],
)
def test_foreign_checkpoint_is_refused(tmp_path, state):
    _tracked(tmp_path, value=tf.Variable(1.0)).save(1)
    with pytest.raises(CheckpointError, match="does not fit this run"):
        _tracked(tmp_path, **state).restore()


def test_damaged_checkpoint_is_refused(tmp_path):
    checkpoints = _tracked(tmp_path, value=tf.Variable(tf.ones([100])))
    checkpoints.save(1)
    for file in tmp_path.glob("ckpt-1.data*"):
        file.write_bytes(file.read_bytes()[:7])
    with pytest.raises(CheckpointError, match="damaged"):
        checkpoints.restore()


def test_keep_is_checked(tmp_path):
    with pytest.raises(ValueError, match="at least 1"):
        Checkpoints(tmp_path, keep=0)
