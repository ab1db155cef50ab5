"""Early stopping and the schedules of the learning rate."""

from __future__ import annotations

import numpy as np
import pytest
import tensorflow as tf

from ccp_dml.training.controllers import EarlyStopping, ExponentialDecay, ReduceOnPlateau
from ccp_dml.training.options import OptimizerOptions


def stops(stopping: EarlyStopping, epoch: int, score: float) -> bool:
    """Returns True if training ends after a validation with this score."""
    stopping.after_validation(epoch, {"val_map_at_r": score})
    return stopping.should_stop


def rate_after(schedule: ReduceOnPlateau, score: float) -> float:
    """Returns the learning rate of the next step after a validation with this score."""
    schedule.after_validation(0, {"val_map_at_r": score})
    return rate_of_step(schedule, 0)


def rate_of_step(schedule: ExponentialDecay | ReduceOnPlateau, step: int) -> float:
    """Returns the learning rate that a schedule sets before a step, in a graph."""
    rate = tf.Variable(0.0)
    tf.function(schedule.before_step)(rate, tf.constant(step, tf.int64))
    return float(rate)


@pytest.mark.parametrize("lower_is_better", [False, True])
@pytest.mark.parametrize("seed", range(4))
def test_early_stopping_finds_the_best_epoch_and_restores_its_weights(seed, lower_is_better):
    scores = np.random.default_rng(seed).integers(0, 8, size=30).astype(float)
    weight = tf.Variable(-1.0)
    stopping = EarlyStopping([weight], patience=4, stop_at_min=lower_is_better)
    sign = -1 if lower_is_better else 1
    for epoch, score in enumerate(scores):
        weight.assign(float(epoch))
        stopped = stops(stopping, epoch, score)
        best = int(np.argmax(sign * scores[: epoch + 1]))
        assert stopping.best_epoch == best
        assert float(stopping.best_score) == scores[best]
        assert stopped == (epoch - best >= 4)
        if stopped:
            break
    assert stopped
    weight.assign(-5.0)
    stopping.end()
    assert float(weight) == best


def test_nan_is_never_the_best_score():
    weight = tf.Variable(0.0)
    stopping = EarlyStopping([weight], patience=2)
    assert not stops(stopping, 0, float("nan"))
    weight.assign(7.0)
    stopping.end()
    assert float(weight) == 7.0, "there are no best weights to restore"
    assert not stops(stopping, 1, 0.1)
    assert not stops(stopping, 2, float("nan"))
    assert stops(stopping, 3, float("nan"))
    assert stopping.best_epoch == 1


def test_without_patience_training_never_stops():
    stopping = EarlyStopping([], patience=0)
    assert not any(stops(stopping, epoch, -epoch) for epoch in range(50))
    assert stopping.best_epoch == 0


def test_exponential_decay():
    options = OptimizerOptions(learning_rate=0.1, decay_rate=0.5, decay_epochs=2.5)
    schedule = ExponentialDecay(options, steps_per_epoch=4)
    for step in (0, 5, 10, 25):
        assert rate_of_step(schedule, step) == pytest.approx(0.1 * 0.5 ** (step / 10), rel=1e-5)


@pytest.mark.parametrize("lower_is_better", [False, True])
@pytest.mark.parametrize("patience", [1, 2, 3])
def test_plateau_schedule_agrees_with_keras(patience, lower_is_better):
    generator = np.random.default_rng(patience)
    scores = np.round(np.cumsum(generator.normal(size=40)) * 0.1, 2)
    options = OptimizerOptions(
        learning_rate=1.0, plateau_factor=0.7, plateau_patience=patience, min_learning_rate=0.2
    )
    ours = ReduceOnPlateau(options, stop_at_min=lower_is_better)
    theirs = tf.keras.callbacks.ReduceLROnPlateau(
        "score", 0.7, patience, mode="min" if lower_is_better else "max", min_lr=0.2
    )
    model = tf.keras.Sequential([tf.keras.layers.Dense(1, input_shape=(1,))])
    model.compile(tf.keras.optimizers.SGD(1.0))
    theirs.set_model(model)
    theirs.on_train_begin()
    for epoch, score in enumerate(scores):
        theirs.on_epoch_end(epoch, {"score": score})
        assert rate_after(ours, float(score)) == pytest.approx(float(model.optimizer.lr))
    assert float(ours.learning_rate) < 1.0


def test_a_rate_below_the_minimum_stays():
    options = OptimizerOptions(learning_rate=0.1, plateau_patience=1, min_learning_rate=0.5)
    schedule = ReduceOnPlateau(options)
    for score in (0.0, 0.0, float("nan")):
        assert rate_after(schedule, score) == pytest.approx(0.1)


@pytest.mark.parametrize(
    "options",
    [{"decay_rate": 1.5}, {"decay_epochs": 0.0}, {"plateau_factor": 1.0}, {"plateau_patience": 0}],
)
def test_options_of_the_schedules_are_checked(options):
    [name] = options
    with pytest.raises(ValueError, match=f"{name}=.*expected"):
        OptimizerOptions(**options)
