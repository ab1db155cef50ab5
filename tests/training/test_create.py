"""Trainers made from a model, a loss and a source: exact continuation, best weights, errors."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf

import ccp_dml
from ccp_dml.training import OptimizerOptions, TrainingOptions
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


@pytest.mark.parametrize("multiplier", [0.0, 0.1, 1.0])
def test_the_backbone_has_a_learning_rate_of_its_own(multiplier: float) -> None:
    images, labels = np.random.default_rng(0).normal(size=(8, 3)).astype(np.float32), np.repeat([0, 1], 4)
    steps = []
    for factor in (1.0, multiplier):
        tf.keras.utils.set_random_seed(0)
        inputs = tf.keras.Input([3])
        backbone, head = tf.keras.layers.Dense(4), tf.keras.layers.Dense(2)
        model = tf.keras.Model(inputs, head(backbone(inputs)))
        before = [layer.kernel.numpy() for layer in (backbone, head)]
        trainer = ccp_dml.Trainer.create(
            model,
            ccp_dml.losses.MultiSimilarity(),
            lambda step: tf.data.Dataset.from_tensors((images, labels)).repeat(),
            TrainingOptions(steps_per_epoch=1),
            optimizer=OptimizerOptions(
                optimizer="sgd", learning_rate=1e-3, backbone_learning_rate_multiplier=factor
            ),
            backbone=backbone.trainable_variables,
        )
        trainer.fit(max_epochs=1)
        steps.append([layer.kernel.numpy() - start for layer, start in zip((backbone, head), before)])
    (whole, of_head), (part, again) = steps
    np.testing.assert_allclose(part, multiplier * whole, rtol=1e-3, atol=1e-7)
    np.testing.assert_allclose(again, of_head, rtol=1e-5)
