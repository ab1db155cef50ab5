"""Runs that are interrupted by a signal, and runs that continue."""

from __future__ import annotations

import csv
import os
import signal

import numpy as np
import pytest
import tensorflow as tf

from ccp_dml.monitoring.console import MetricsCsv
from ccp_dml.training.checkpoints import Checkpoints, StopRequest, TrainingInterrupted
from ccp_dml.training.chunks import ChunkRunner
from tests.training import tiny

EPOCHS = 5
# Columns that differ in every run.
MEASURED = ("images_per_second", "data_wait_share")


class SignalAt(tf.keras.callbacks.Callback):
    """Sends the process a signal at the end of a chunk."""

    def __init__(self, run, step: int, number: int = signal.SIGINT) -> None:
        super().__init__()
        self._run, self._step, self._number = run, step, number

    def on_train_batch_end(self, batch, logs=None):
        if int(self._run.step) == self._step:
            os.kill(os.getpid(), self._number)


def _state(run) -> list[np.ndarray]:
    variables = {v.ref(): v for component in run.state.values() for v in _variables(component)}
    return [variable.numpy() for variable in variables.values()]


def _variables(component):
    return [component] if isinstance(component, tf.Variable) else component.variables


def _rows(path) -> list[dict]:
    with path.open() as file:
        return [{k: v for k, v in row.items() if k not in MEASURED} for row in csv.DictReader(file)]


@pytest.mark.parametrize(
    "optimizer, stop_at, number, averages, warm_up, memory_steps",
    [
        # The warm-up has seven steps: the run stops at its end, inside an epoch.
        ("adam", 7, signal.SIGINT, None, (1.75, 0.5), 0),
        pytest.param(
            "radam",
            8,
            signal.SIGTERM,
            {"ema_attraction": 0.1, "ema_repulsion": 1e-3, "ema_decay": 0.9},
            None,
            6,
            marks=pytest.mark.slow,
        ),
        pytest.param("adamw", 3, signal.SIGINT, None, None, 6, marks=pytest.mark.slow),
    ],
)
def test_an_interrupted_run_ends_like_an_uninterrupted_one(
    tmp_path, optimizer, stop_at, number, averages, warm_up, memory_steps
):
    options = {
        "optimizer": optimizer,
        "averages": averages,
        "warm_up": warm_up,
        "memory_steps": memory_steps,
    }
    whole = tiny.trainer(**options, callbacks=[MetricsCsv(tmp_path / "whole.csv")])
    whole.fit(EPOCHS)

    def interruptible_run():
        log = MetricsCsv(tmp_path / "interrupted.csv")
        return tiny.trainer(**options, checkpoints=Checkpoints(tmp_path / "ckpt"), callbacks=[log])

    first = interruptible_run()
    first._callbacks.append(SignalAt(first, stop_at, number))
    with pytest.raises(TrainingInterrupted, match=f"step {stop_at}.*same command continues") as stopped:
        first.fit(EPOCHS)
    assert stopped.value.checkpoint is not None
    second = interruptible_run()
    assert second.restore()
    assert int(second.step) == stop_at
    second.fit(EPOCHS)

    for actual, expected in zip(_state(second), _state(whole)):
        np.testing.assert_array_equal(actual, expected)
    assert int(second.state["alternating_projections"].instance) >= 1
    assert _rows(tmp_path / "interrupted.csv") == _rows(tmp_path / "whole.csv")


def test_a_finished_run_stays_finished(tmp_path):
    first = tiny.trainer(patience=1, checkpoints=Checkpoints(tmp_path))
    first.fit(20)
    second = tiny.trainer(patience=1, checkpoints=Checkpoints(tmp_path))
    second.restore()
    assert second.fit(20) == {}
    assert int(first.step) == int(second.step) < 80
    for actual, expected in zip(tiny.values(second), tiny.values(first)):
        np.testing.assert_array_equal(actual, expected)


def test_a_run_that_continues_after_its_warm_up_does_not_trace_it(tmp_path, monkeypatch):
    def run():
        return tiny.trainer(warm_up=(1, 0.1), checkpoints=Checkpoints(tmp_path))

    run().fit(1)
    traced = []
    initialize = ChunkRunner.__init__

    def counting(*arguments, **keywords):
        traced.append(arguments)
        initialize(*arguments, **keywords)

    monkeypatch.setattr(ChunkRunner, "__init__", counting)
    second = run()
    assert second.restore()
    second.fit(2)
    assert len(traced) == 1


@pytest.fixture
def interruptible():
    """Enables Ctrl-C, which processes in the background ignore."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.mark.usefixtures("interruptible")
def test_a_second_signal_acts_at_once():
    with pytest.raises(KeyboardInterrupt), StopRequest() as request:  # noqa: PT012
        os.kill(os.getpid(), signal.SIGINT)
        assert request.requested
        os.kill(os.getpid(), signal.SIGINT)
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


def test_without_a_folder_the_message_says_that_nothing_is_saved():
    run = tiny.trainer()
    run._callbacks.append(SignalAt(run, 3))
    with pytest.raises(TrainingInterrupted, match="step 3, not saved"):
        run.fit(2)
