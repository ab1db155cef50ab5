"""Traces for TensorBoard's profiler."""

from __future__ import annotations

import pytest
import tensorflow as tf

from ccp_dml.monitoring.tensorboard import ProfileSteps


def test_a_trace_is_where_tensorboard_looks_for_it(tmp_path):
    step = tf.Variable(0)
    iterator = iter(tf.data.Dataset.range(100))

    @tf.function
    def train_step() -> None:
        step.assign_add(1)
        next(iterator)

    callback = ProfileSteps(str(tmp_path), (1, 5), lambda: int(step))
    callback.on_train_begin()
    for batch in range(8):
        callback.on_train_batch_begin(batch)
        train_step()
        callback.on_train_batch_end(batch)
    callback.on_train_end()
    traces = list(tmp_path.glob("plugins/profile/*/*.xplane.pb"))
    assert len(traces) == 1
    # The operations of TensorFlow functions are in the trace.
    assert b"IteratorGetNext" in traces[0].read_bytes()


@pytest.mark.parametrize(
    "steps, first, expected",
    [
        ((0, 1), 0, [("start", 0), ("stop", 3)]),
        ((3, 5), 0, [("start", 3), ("stop", 6)]),
        ((4, 5), 0, [("start", 6), ("stop", 9)]),
        ((5, 100), 0, [("start", 6), ("stop", 9)]),
        ((100, 200), 0, []),
        ((0, 7), 6, [("start", 6), ("stop", 9)]),
        ((0, 6), 6, []),
    ],
)
def test_whole_chunks_are_traced_once(monkeypatch, steps, first, expected):
    step, calls = first, []
    monkeypatch.setattr(tf.profiler.experimental, "start", lambda directory: calls.append(("start", step)))
    monkeypatch.setattr(tf.profiler.experimental, "stop", lambda: calls.append(("stop", step)))
    callback = ProfileSteps("nowhere", steps, lambda: step)
    callback.on_train_begin()
    while step < 9:
        callback.on_train_batch_begin(step)
        step += 3
        callback.on_train_batch_end(step - 1)
    callback.on_train_end()
    assert calls == expected
