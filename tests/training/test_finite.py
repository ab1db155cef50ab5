from __future__ import annotations

import numpy as np
import pytest
import tensorflow as tf

from ccp_dml.losses.contrastive import Contrastive
from ccp_dml.losses.cross_batch_memory import CrossBatchMemory
from ccp_dml.training.checkpoints import Checkpoints, Saver
from ccp_dml.training.finite import Diverged, FiniteGuard
from ccp_dml.training.optimizers import OptimizerGroups, VariableGroup, make_optimizer
from ccp_dml.training.trainer import Trainer
from tests.training import tiny

BAD = 5


def with_bad_images(*bad: int):
    """The stream of `tiny.batches` into which batches of NaN are put, so that these have the given steps."""

    def batches(first_step: int) -> tf.data.Dataset:
        good = list(tiny.batches(0).take(30))
        numbers = [step - sum(other < step for other in bad) for step in range(30)]
        images = np.stack([good[number][0] for number in numbers])
        labels = np.stack([good[number][1] for number in numbers])
        images[list(bad)] = np.nan
        return tf.data.Dataset.from_tensor_slices((images, labels)).skip(first_step)

    return batches


def trainer(batches, steps: int, policy: str, **options) -> Trainer:
    """A memory and batch normalisation: what must not remember a step that is left out."""
    network = tiny.model()
    loss = CrossBatchMemory(Contrastive(), tiny.SIZE, memory_size=24, start_step=0)
    groups = [VariableGroup(network.trainable_variables)]
    return Trainer(
        network,
        loss,
        OptimizerGroups(lambda rate: make_optimizer("adam", rate), groups, 0.02),
        batches,
        steps_per_epoch=steps,
        guard=FiniteGuard(policy, most_in_a_row=3),
        **{"chunk_size": 4, **options},
    )


def test_a_step_that_is_left_out_leaves_no_trace():
    expected = trainer(with_bad_images(), 10, "skip")
    expected_logs = expected.fit(1)
    actual = trainer(with_bad_images(BAD, 7), 12, "skip")
    logs = actual.fit(1)
    for part in ("model", "loss", "optimizer"):
        for found, wanted in zip(actual.state[part].variables, expected.state[part].variables):
            np.testing.assert_array_equal(found.numpy(), wanted.numpy())
    assert logs["skipped_steps"] == [2]
    assert "skipped_steps" not in expected_logs
    for name in ("loss", "gradient_norm"):
        assert logs[name] == pytest.approx(expected_logs[name], rel=1e-6)


def test_too_many_in_a_row_end_training():
    trainer(with_bad_images(2, 3, 5, 6), 8, "skip", chunk_size=1).fit(1)
    with pytest.raises(Diverged, match="3 steps in a row left out"):
        trainer(with_bad_images(2, 3, 4), 8, "skip", chunk_size=1).fit(1)


@pytest.mark.parametrize("chunk_size", [1, 4])
def test_stopping_names_the_step_the_parts_and_the_checkpoint(tmp_path, chunk_size):
    saver = Saver(Checkpoints(tmp_path), every_steps=4)
    run = trainer(with_bad_images(BAD), 8, "stop", chunk_size=chunk_size, saver=saver)
    with pytest.raises(Diverged) as stopped:
        run.fit(1)
    message = str(stopped.value)
    assert f"Not finite at step {BAD + 1}: " in message
    assert "gradient_norm nan" in message
    assert "pair_loss 0" in message  # A hinge turns NaN embeddings into a loss of 0.
    assert f"the last good checkpoint is {tmp_path / 'step-4' / 'state'}." in message


@pytest.mark.parametrize("options", [{"policy": "ignore"}, {"most_in_a_row": 0}])
def test_options_are_checked(options):
    with pytest.raises(ValueError, match="expected"):
        FiniteGuard(**options)
