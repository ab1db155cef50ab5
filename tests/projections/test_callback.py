"""Alternating projections in `fit`: the same numbers as the trainer, in every kind of model."""

from __future__ import annotations

import numpy as np
import pytest
import tensorflow as tf

import ccp_dml.losses
from ccp_dml.evaluation.callback import RetrievalMetrics
from ccp_dml.projections.callback import CCPCallback
from ccp_dml.projections.options import ProjectionOptions
from ccp_dml.projections.projections import AlternatingProjections
from ccp_dml.training.options import GradientOptions, OptimizerOptions, TrainingOptions
from ccp_dml.training.trainer import Trainer
from tests.training import tiny

OPTIONS = ProjectionOptions(ccp_lambda=0.05, pool_size=4, ccp_reset_rule="patience", ccp_patience=1)
STEPS, EPOCHS = 4, 12


def test_fit_and_the_trainer_give_equal_weights_and_proxies_over_several_instances():
    values, labels = tiny.images()
    network, loss = tiny.model(), tiny.ccp_loss()
    projections = AlternatingProjections.of_model(network, loss, values, labels, OPTIONS, seed=3)
    Trainer.create(
        network,
        loss,
        tiny.batches,
        TrainingOptions(steps_per_epoch=STEPS, patience=0, restore_best=False),
        optimizer=OptimizerOptions("sgd", learning_rate=0.05, momentum=0.0),
        gradients=GradientOptions(weight_decay=0.0, clip_norm=0.0, clip_value=0.0),
        validate=tiny.Scores(network),
        controllers=[projections],
    ).fit(EPOCHS)

    fitted, fitted_loss = tiny.model(), tiny.ccp_loss()
    fitted.compile(optimizer=tf.keras.optimizers.SGD(0.05), loss=fitted_loss)
    scores = tiny.Scores(fitted)
    weights = list(fitted.trainable_variables)
    ours = CCPCallback(fitted_loss, values, labels, OPTIONS, seed=3)
    validate = tf.keras.callbacks.LambdaCallback(
        on_epoch_end=lambda epoch, logs: logs.update(val_map_at_r=_score(scores, weights))
    )
    history = fitted.fit(
        tiny.batches(0), steps_per_epoch=STEPS, epochs=EPOCHS, verbose=0, callbacks=[validate, ours]
    )
    assert int(projections.instance) >= 3
    assert history.history["problem_instance"][-1] == int(projections.instance)
    for expected, found in zip(network.trainable_variables, weights):
        np.testing.assert_allclose(found.numpy(), expected.numpy(), rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(
        fitted_loss.proxies.embeddings.numpy(), loss.proxies.embeddings.numpy(), rtol=1e-5, atol=1e-6
    )


def _score(scores: tiny.Scores, weights: list[tf.Variable]) -> float:
    total = sum(float(tf.reduce_sum(tf.abs(weight))) for weight in weights)
    return float(np.sin(40.0 * total))


class Subclassed(tf.keras.Model):
    def __init__(self) -> None:
        super().__init__()
        self.hidden, self.embedding = tf.keras.layers.Dense(5), tf.keras.layers.Dense(tiny.SIZE)

    def call(self, inputs: tf.Tensor) -> tf.Tensor:
        return self.embedding(self.hidden(inputs))


def functional() -> tf.keras.Model:
    inputs = tf.keras.Input([tiny.INPUT])
    return tf.keras.Model(inputs, tf.keras.layers.Dense(tiny.SIZE)(inputs))


MODELS = {
    "functional": functional,
    "sequential": lambda: tf.keras.Sequential([tf.keras.layers.Dense(tiny.SIZE)]),
    "subclassed": Subclassed,
}


@pytest.mark.parametrize("as_list", [False, True], ids=["array", "list"])
@pytest.mark.parametrize("kind", MODELS)
def test_proxies_are_trained_and_replaced_in_every_kind_of_model(kind, as_list):
    values, labels = tiny.images()
    model, loss = MODELS[kind](), tiny.ccp_loss()
    model.compile(optimizer=tf.keras.optimizers.SGD(0.1), loss=loss)
    replaced = CCPCallback(loss, list(values) if as_list else values, labels, batch_size=6)
    metrics = RetrievalMetrics(values, labels)
    stored = []

    def keep(epoch: int, logs: dict[str, float]) -> None:
        stored.append(loss.proxies.embeddings.numpy())

    watch = tf.keras.callbacks.LambdaCallback(on_epoch_begin=keep, on_epoch_end=keep)
    # Batches of two sizes: a `Sequential` is built again when their size changes.
    history = model.fit(
        values, labels, batch_size=8, epochs=2, verbose=0, callbacks=[metrics, replaced, watch]
    )
    assert [len(history.history[name]) for name in ("val_map_at_r", "problem_instance")] == [2, 2]
    assert history.history["problem_instance"] == [1, 2]
    embedded = [model(values[labels == c]).numpy() for c in range(tiny.CLASSES)]
    for row, proxy in enumerate(stored[-1]):
        # The last reset has chosen embeddings of the class.
        of_class = embedded[row % tiny.CLASSES]
        assert np.abs(of_class - proxy).max(axis=1).min() < 1e-5
    assert any(variable is loss.proxies.embeddings for variable in model.trainable_variables)


def test_a_second_fit_goes_on():
    values, labels = tiny.images()
    model, loss = functional(), tiny.ccp_loss()
    model.compile(optimizer="sgd", loss=loss)
    replaced = CCPCallback(loss, values, labels)
    model.fit(values, labels, epochs=2, verbose=0, callbacks=[replaced])
    model.fit(values, labels, epochs=1, verbose=0, callbacks=[replaced])
    assert int(replaced.projections.instance) == 3
    assert len(model.losses) == 1


def test_losses_without_proxies_and_labels_of_another_length_are_refused():
    values, labels = tiny.images()
    with pytest.raises(ValueError, match="Contrastive has no proxies; expected a loss with proxies"):
        CCPCallback(ccp_dml.losses.Contrastive(), values, labels)
    with pytest.raises(ValueError, match=r"labels have the shape \(19,\); expected \(20,\)"):
        CCPCallback(tiny.ccp_loss(), values, labels[1:])
    with pytest.raises(ValueError, match="the labels have 5 classes; expected 4, as the loss has"):
        CCPCallback(tiny.ccp_loss(), values, np.arange(20) % 5)
    with pytest.raises(ValueError, match="pool_memory_steps is 3; expected 0"):
        CCPCallback(tiny.ccp_loss(), values, labels, ProjectionOptions(pool_memory_steps=3))
    with pytest.raises(ValueError, match="ccp_patience is 2 with ccp_reset_rule='fixed', where it has no"):
        CCPCallback(tiny.ccp_loss(), values, labels, ProjectionOptions(ccp_patience=2))
