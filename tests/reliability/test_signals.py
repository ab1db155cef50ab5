"""Signals at every stage of training: obeyed, with the state saved, and never lost."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable, Iterator

import numpy as np
import pytest
import tensorflow as tf

from ccp_dml import commands
from ccp_dml.training.checkpoints import Checkpoints, StopRequest, TrainingInterrupted
from ccp_dml.training.controllers import EarlyStopping
from ccp_dml.training.trainer import Trainer
from tests.training import tiny

EPOCHS, STEPS = 2, 4
# In the trainer: a method of the class, the number of its call, and the step with which training stops.
PLACES: dict[str, tuple[type, str, int, int]] = {
    "first chunk": (tf.keras.callbacks.CallbackList, "on_train_batch_end", 1, 3),
    "last chunk": (tf.keras.callbacks.CallbackList, "on_train_batch_end", 4, 8),
    "first validation": (tiny.Scores, "__call__", 1, 4),
    "last validation": (tiny.Scores, "__call__", 2, 8),
    "first checkpoint": (Checkpoints, "save", 1, 7),
    "last checkpoint": (Checkpoints, "save", 2, 8),
    "restoring the best weights": (EarlyStopping, "end", 1, 8),
    "the end of training": (tf.keras.callbacks.CallbackList, "on_train_end", 1, 8),
    "leaving": (StopRequest, "__exit__", 1, 8),
}
SIGNALS = [
    (signal.SIGTERM,),
    pytest.param((signal.SIGINT,), marks=pytest.mark.slow),
    pytest.param((signal.SIGTERM, signal.SIGTERM), marks=pytest.mark.slow),
]


@pytest.fixture(autouse=True)
def interruptible() -> Iterator[None]:
    """Enables Ctrl-C, which processes in the background ignore."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


def signal_in(patch: pytest.MonkeyPatch, place: str, numbers: tuple[int, ...]) -> None:
    """Sends the signals from within a call of a method."""
    owner, name, count, _ = PLACES[place]
    method, calls = getattr(owner, name), []

    def signalled(*arguments, **keywords):
        calls.append(name)
        if len(calls) == count:
            for number in numbers:
                os.kill(os.getpid(), number)
        return method(*arguments, **keywords)

    patch.setattr(owner, name, signalled)


def outcome(action: Callable[[], object]) -> int:
    return commands.run(action)


def interrupted_at(run: Trainer, epochs: int = EPOCHS) -> None:
    try:
        run.fit(epochs)
    except TrainingInterrupted as stop:
        raise KeyboardInterrupt(f"step {stop.step}") from stop


@pytest.fixture(scope="module")
def whole() -> list[np.ndarray]:
    run = tiny.trainer(steps_per_epoch=STEPS, chunk_size=3)
    run.fit(EPOCHS)
    return tiny.values(run)


@pytest.mark.parametrize("numbers", SIGNALS, ids=str)
@pytest.mark.parametrize("place", PLACES)
def test_a_signal_is_obeyed_and_the_run_ends_the_same(tmp_path, monkeypatch, capfd, whole, place, numbers):
    def run() -> Trainer:
        return tiny.trainer(steps_per_epoch=STEPS, chunk_size=3, checkpoints=Checkpoints(tmp_path))

    with monkeypatch.context() as patch:
        signal_in(patch, place, numbers)
        assert outcome(lambda: interrupted_at(run())) == commands.INTERRUPTED
    again = run()
    again.restore()
    if len(numbers) == 1:  # The second one stops the run at once, before it saves.
        assert int(again.step) == PLACES[place][3]
    again.fit(EPOCHS)
    for actual, expected in zip(tiny.values(again), whole, strict=True):
        np.testing.assert_array_equal(actual, expected)


def test_after_a_signal_in_its_last_checkpoint_a_run_does_not_go_on_to_the_next(tmp_path, monkeypatch, capfd):
    """As in a group, whose next run would begin."""
    trained = []

    def group() -> None:
        for number in (1, 2):
            checkpoints = Checkpoints(tmp_path / str(number))
            (tmp_path / str(number)).mkdir(exist_ok=True)
            interrupted_at(tiny.trainer(checkpoints=checkpoints), epochs=1)
            trained.append(number)

    with monkeypatch.context() as patch:
        patch.setitem(PLACES, "only checkpoint", (Checkpoints, "save", 1, 4))
        signal_in(patch, "only checkpoint", (signal.SIGTERM,))
        assert outcome(group) == commands.INTERRUPTED
    assert trained == []
    assert outcome(group) == 0
    assert trained == [1, 2]


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_in_a_destructor_is_not_lost(capfd, number):
    """Python ignores exceptions there: between the runs of a group, many models are deleted."""

    class Model:
        def __del__(self) -> None:
            os.kill(os.getpid(), number)

    def between_runs() -> None:
        model = Model()
        del model
        time.sleep(20)

    started = time.monotonic()
    assert outcome(between_runs) == commands.INTERRUPTED
    assert time.monotonic() - started < 10


def test_a_block_that_ignores_the_request_is_followed_by_the_signal():
    with pytest.raises(KeyboardInterrupt), StopRequest() as request:  # noqa: PT012
        os.kill(os.getpid(), signal.SIGINT)
        assert request.requested


def test_an_exception_of_the_block_takes_precedence():
    with pytest.raises(ZeroDivisionError), StopRequest():  # noqa: PT012
        os.kill(os.getpid(), signal.SIGINT)
        raise ZeroDivisionError
