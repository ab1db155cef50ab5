"""Steps with numbers that are not finite, and the loss scale of float16."""

from __future__ import annotations

import functools

import numpy as np
import pytest
import tensorflow as tf

from ccp_dml.losses.contrastive import Contrastive
from ccp_dml.losses.cross_batch_memory import CrossBatchMemory
from ccp_dml.training.checkpoints import Checkpoints
from ccp_dml.training.finite import Diverged, DynamicLossScale, FiniteGuard
from ccp_dml.training.optimizers import OptimizerGroups, VariableGroup, make_optimizer
from ccp_dml.training.options import CheckpointOptions, TrainingOptions
from ccp_dml.training.step import TrainStep
from ccp_dml.training.trainer import Trainer
from tests.training import tiny

BAD = 5


def with_bad_images(*bad: int):
    """Returns the stream of `tiny.batches` with batches of NaN inserted at the given steps."""

    def batches(first_step: int) -> tf.data.Dataset:
        good = list(tiny.batches(0).take(30))
        numbers = [step - sum(other < step for other in bad) for step in range(30)]
        images = np.stack([good[number][0] for number in numbers])
        labels = np.stack([good[number][1] for number in numbers])
        images[list(bad)] = np.nan
        return tf.data.Dataset.from_tensor_slices((images, labels)).skip(first_step)

    return batches


def trainer(batches, steps: int, *, skips: bool, chunk_size: int = 4, **options) -> Trainer:
    """Makes a run with a memory and batch normalisation, which a skipped step must not change."""
    network = tiny.model()
    loss = CrossBatchMemory(Contrastive(), tiny.SIZE, memory_size=24, start_step=0)
    groups = [VariableGroup(network.trainable_variables)]
    optimizer = OptimizerGroups(functools.partial(make_optimizer, "adam"), groups, 0.02)
    step = TrainStep(network, loss, optimizer, guard=FiniteGuard(skips=skips, most_in_a_row=3))
    return Trainer(step, batches, TrainingOptions(steps_per_epoch=steps, chunk_size=chunk_size), **options)


def test_a_skipped_step_changes_nothing():
    expected = trainer(with_bad_images(), 10, skips=True)
    expected_logs = expected.fit(1)
    actual = trainer(with_bad_images(BAD, 7), 12, skips=True)
    logs = actual.fit(1)
    for name in ("model", "loss", "optimizer"):
        for found, wanted in zip(actual.state[name].variables, expected.state[name].variables):
            np.testing.assert_array_equal(found.numpy(), wanted.numpy())
    assert logs["skipped_steps"] == [2]
    assert "skipped_steps" not in expected_logs
    for name in ("loss", "gradient_norm"):
        assert logs[name] == pytest.approx(expected_logs[name], rel=1e-6)


def test_too_many_skipped_steps_in_a_row_stop_training():
    trainer(with_bad_images(2, 3, 5, 6), 8, skips=True, chunk_size=1).fit(1)
    with pytest.raises(Diverged, match="3 steps in a row skipped"):
        trainer(with_bad_images(2, 3, 4), 8, skips=True, chunk_size=1).fit(1)


@pytest.mark.parametrize("chunk_size", [1, 4])
def test_the_error_names_the_step_its_scalars_and_the_checkpoint(tmp_path, chunk_size):
    checkpoints = Checkpoints(tmp_path, CheckpointOptions(checkpoint_steps=4))
    run = trainer(with_bad_images(BAD), 8, skips=False, chunk_size=chunk_size, checkpoints=checkpoints)
    with pytest.raises(Diverged) as stopped:
        run.fit(1)
    message = str(stopped.value)
    assert f"Not finite at step {BAD + 1}: " in message
    assert "gradient_norm nan" in message
    assert "pair_loss 0" in message  # A hinge turns NaN embeddings into a loss of 0.
    assert f"the last good checkpoint is {tmp_path / 'step-4' / 'state'}." in message


def test_the_loss_scale_changes_like_that_of_keras():
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


def test_unscaling_undoes_scaling():
    scale = DynamicLossScale(initial_scale=8.0)
    assert float(scale.scaled(tf.constant(2.0))) == 16.0
    assert scale.unscaled([tf.constant(16.0), None]) == [tf.constant(2.0), None]


def test_the_loss_scale_stays_finite():
    scale = DynamicLossScale(initial_scale=2.0**127, growth_steps=1)
    scale.update(tf.constant(True))
    assert float(scale.scale) == 2.0**127


def test_only_float16_has_a_loss_scale():
    assert DynamicLossScale.of_policy() is None
