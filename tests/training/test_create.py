"""Trainers made from a model, a loss and a source: exact continuation, best weights, errors."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf

import ccp_dml
from ccp_dml.distributed.workers import Workers
from ccp_dml.training import Checkpoints, OptimizerOptions, TrainingOptions
from tests.training import tiny


def trainer(folder: Path | None, strategy: tf.distribute.Strategy | None = None) -> ccp_dml.Trainer:
    values, labels = tiny.images()
    source, workers = ccp_dml.data.from_arrays(values, labels), Workers(strategy)
    with workers.scope():
        model, loss = tiny.model(), tiny.ccp_loss()
    metrics = ccp_dml.RetrievalMetrics(values, labels)
    return ccp_dml.Trainer.create(
        model,
        loss,
        lambda step: ccp_dml.data.balanced_batches(source, 3, 2, first_step=step, strategy=strategy),
        TrainingOptions(steps_per_epoch=4, patience=3),
        optimizer=OptimizerOptions(learning_rate=0.02, learning_rate_schedule="plateau"),
        validate=lambda: metrics.scores(model),
        controllers=[ccp_dml.projections.AlternatingProjections.of_model(model, loss, values, labels)],
        checkpoints=Checkpoints(folder, workers=workers),
    )


def test_a_run_continues_with_equal_bits(tmp_path: Path):
    expected = trainer(None)
    logs = expected.fit(5)
    trainer(tmp_path).fit(2)
    continued = trainer(tmp_path)
    assert continued.restore()
    rest = continued.fit(5)
    assert continued.epoch == 5
    for name in ("loss", "val_map_at_r", "problem_instance", "learning_rate"):
        assert rest[name] == logs[name][2:], name
    for found, value in zip(tiny.values(continued), tiny.values(expected), strict=True):
        np.testing.assert_array_equal(found, value)


def test_a_strategy_trains_the_same_weights():
    expected, divided = trainer(None), trainer(None, tf.distribute.MirroredStrategy(["CPU:0"]))
    expected.fit(2), divided.fit(2)
    for found, value in zip(tiny.values(divided), tiny.values(expected), strict=True):
        np.testing.assert_allclose(found, value, rtol=1e-4, atol=1e-5)


def test_a_model_without_weights_is_refused():
    model = tf.keras.Sequential([tf.keras.layers.Dense(2)])
    with pytest.raises(ValueError, match="has no weights yet; expected one that knows the shape"):
        ccp_dml.Trainer.create(model, tiny.ccp_loss(), tiny.batches)
