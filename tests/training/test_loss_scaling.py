from __future__ import annotations

import pytest
import tensorflow as tf

from ccp_dml.training.loss_scaling import DynamicLossScale, loss_scale_for_policy


def test_scale_follows_the_overflows():
    """The same decisions as Keras' own loss scale."""
    ours = DynamicLossScale(initial_scale=16.0, growth_steps=3)
    theirs = tf.keras.mixed_precision.LossScaleOptimizer(
        tf.keras.optimizers.SGD(0.0), initial_scale=16.0, dynamic_growth_steps=3
    )
    weight = tf.Variable(1.0)
    update = tf.function(ours.update)
    for finite in [True, True, False, True, True, True, True, True, True, False, False] + [False] * 9:
        gradient = tf.constant(1.0 if finite else float("inf"))
        theirs.apply_gradients([(gradient, weight)])
        update(tf.constant(finite))
        assert float(ours.scale) == float(theirs.loss_scale)
    assert float(ours.scale) == 1.0


def test_scaling_is_undone():
    scale = DynamicLossScale(initial_scale=8.0)
    assert float(scale.scaled(tf.constant(2.0))) == 16.0
    assert scale.unscaled([tf.constant(16.0), None]) == [tf.constant(2.0), None]


def test_it_never_becomes_infinite():
    scale = DynamicLossScale(initial_scale=2.0**127, growth_steps=1)
    scale.update(tf.constant(True))
    assert float(scale.scale) == 2.0**127


def test_only_float16_needs_it():
    assert loss_scale_for_policy() is None
    with pytest.raises(ValueError, match="at least 1"):
        DynamicLossScale(0.5)
