"""The time of a run and the speed of an epoch."""

from __future__ import annotations

import time

import pytest
import tensorflow as tf

from ccp_dml.training import epoch_logs
from ccp_dml.training.chunks import ChunkRunner
from ccp_dml.training.epoch_logs import EpochSpeed, WallTime
from tests.training import tiny


class Clock:
    """A clock that a test sets forward."""

    def __init__(self) -> None:
        self.now = 100.0

    def perf_counter(self) -> float:
        return self.now


def test_shares_of_the_activities_and_of_the_rest(monkeypatch):
    clock = Clock()
    monkeypatch.setattr(epoch_logs, "time", clock)
    times = WallTime()
    for activity, seconds in (("training", 3.0), ("validation", 1.0), ("training", 2.0), ("resets", 0.5)):
        with times.measured(activity):
            clock.now += seconds
    times.data_wait += 2.0
    clock.now += 3.5
    expected = {"training": 0.5, "validation": 0.1, "resets": 0.05, "other": 0.35, "data_wait": 0.2}
    assert times.shares() == pytest.approx(expected)
    assert str(times) == (
        "time: training 50.0% (20.0% waiting for data), validation 10.0%, resets 5.0%, other 35.0%"
    )


def test_the_speed_of_an_epoch_ignores_the_time_before_it(monkeypatch):
    clock = Clock()
    monkeypatch.setattr(epoch_logs, "time", clock)
    times = WallTime()
    with times.measured("training"):
        clock.now += 7.0
    times.data_wait += 5.0
    speed = EpochSpeed(times)
    for activity, seconds in (("training", 1.5), ("validation", 9.0), ("training", 2.5)):
        with times.measured(activity):
            clock.now += seconds
    times.data_wait += 1.0
    speed.images += 12
    assert speed.logs == {"images_per_second": 3.0, "data_wait_share": 0.25}


def test_the_time_of_an_activity_that_fails_counts(monkeypatch):
    clock = Clock()
    monkeypatch.setattr(epoch_logs, "time", clock)
    times = WallTime()

    def fail() -> None:
        with times.measured("validation"):
            clock.now += 2.0
            raise KeyError

    with pytest.raises(KeyError):
        fail()
    assert times.shares()["validation"] == 1.0


def refused() -> tf.Tensor:
    """Raises as `tf.timestamp` does where operations have to be deterministic."""
    raise tf.errors.FailedPreconditionError(None, None, "Timestamp")


@pytest.mark.parametrize("timestamp", [tf.timestamp, refused])
def test_a_chunk_measures_the_wait_for_its_batches(timestamp, monkeypatch):
    monkeypatch.setattr(tf, "timestamp", timestamp)
    pause, steps = 0.01, 3

    def late(value: tf.Tensor) -> tf.Tensor:
        time.sleep(pause)
        return value

    def batch(number: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        found = tf.numpy_function(late, [tf.cast(number, tf.float32)], tf.float32)
        return tf.ensure_shape(found, []) * tf.ones([2, 3]), tf.zeros([2], tf.int32)

    def step(images: tf.Tensor, labels: tf.Tensor) -> tuple[dict[str, tf.Tensor], tf.Tensor, tf.Tensor]:
        return {"loss": tf.reduce_sum(images)}, labels, images

    batches = tf.data.Dataset.counter().map(batch)
    counter = tf.Variable(0, dtype=tf.int64)
    runner = ChunkRunner(step, batches.element_spec, counter, lambda number: None, lambda *batch: None)
    chunk = runner(iter(batches), steps)
    assert chunk.sums["loss"] == 6.0 * (0 + 1 + 2)
    # A pause may last longer than asked for, but not shorter.
    assert chunk.data_wait >= 0.9 * steps * pause


def test_logs_and_shares_of_a_run():
    run = tiny.trainer(steps_per_epoch=4)
    history = run.fit(2)
    assert all(0.0 <= share <= 1.0 for share in history["data_wait_share"])
    shares = run.wall_time.shares()
    assert min(shares[activity] for activity in ("training", "validation", "resets")) > 0
    assert shares["data_wait"] <= shares["training"]
