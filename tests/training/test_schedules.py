from __future__ import annotations

import numpy as np
import pytest
import tensorflow as tf

from ccp_dml.training.controllers import ExponentialDecay, ReduceOnPlateau


@pytest.mark.parametrize("staircase", [False, True])
def test_exponential_decay(staircase):
    schedule = ExponentialDecay(0.1, decay_rate=0.5, decay_steps=10, staircase=staircase)
    rates = tf.function(schedule)
    for step in (0, 5, 10, 25):
        exponent = step // 10 if staircase else step / 10
        assert float(rates(tf.constant(step, tf.int64))) == pytest.approx(0.1 * 0.5**exponent, rel=1e-5)
    assert not schedule.update(1.0)


@pytest.mark.parametrize("lower_is_better", [False, True])
@pytest.mark.parametrize("patience", [1, 2, 3])
def test_plateau_agrees_with_keras(patience, lower_is_better):
    generator = np.random.default_rng(patience)
    scores = np.round(np.cumsum(generator.normal(size=40)) * 0.1, 2)
    ours = ReduceOnPlateau(
        1.0, factor=0.7, patience=patience, min_learning_rate=0.2, min_delta=0.01, stop_at_min=lower_is_better
    )
    theirs = tf.keras.callbacks.ReduceLROnPlateau(
        "score", 0.7, patience, mode="min" if lower_is_better else "max", min_delta=0.01, min_lr=0.2
    )
    model = tf.keras.Sequential([tf.keras.layers.Dense(1, input_shape=(1,))])
    model.compile(tf.keras.optimizers.SGD(1.0))
    theirs.set_model(model)
    theirs.on_train_begin()
    for epoch, score in enumerate(scores):
        before = float(model.optimizer.lr)
        theirs.on_epoch_end(epoch, {"score": score})
        changed = ours.update(float(score))
        assert float(ours(tf.constant(0, tf.int64))) == pytest.approx(float(model.optimizer.lr))
        assert changed == (float(model.optimizer.lr) < before)
    assert float(ours.learning_rate) < 1.0


def test_rate_below_the_least_stays():
    schedule = ReduceOnPlateau(0.1, patience=1, min_learning_rate=0.5)
    assert not any([schedule.update(0.0), schedule.update(0.0), schedule.update(float("nan"))])
    assert float(schedule.learning_rate) == pytest.approx(0.1)


@pytest.mark.parametrize(
    "make",
    [
        lambda: ExponentialDecay(0.1, decay_rate=1.5, decay_steps=1),
        lambda: ExponentialDecay(0.1, decay_rate=0.5, decay_steps=0),
        lambda: ReduceOnPlateau(0.1, factor=1.0),
        lambda: ReduceOnPlateau(0.1, patience=0),
    ],
)
def test_bad_numbers(make):
    with pytest.raises(ValueError, match="expected"):
        make()
