"""Trainers made from a model, a loss and a source: exact continuation, best weights, errors."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf

import ccp_dml
from tests.training import tiny


def test_a_run_continues_with_equal_bits(tmp_path: Path):
    expected = tiny.created()
    logs = expected.fit(5)
    tiny.created(tmp_path).fit(2)
    continued = tiny.created(tmp_path)
    assert continued.restore()
    rest = continued.fit(5)
    assert continued.epoch == 5
    for name in ("loss", "val_map_at_r", "problem_instance", "learning_rate"):
        assert rest[name] == logs[name][2:], name
    for found, value in zip(tiny.values(continued), tiny.values(expected), strict=True):
        np.testing.assert_array_equal(found, value)


def test_a_model_without_weights_is_refused():
    model = tf.keras.Sequential([tf.keras.layers.Dense(2)])
    with pytest.raises(ValueError, match="has no weights yet; expected one that knows the shape"):
        ccp_dml.Trainer.create(model, tiny.ccp_loss(), tiny.batches)
