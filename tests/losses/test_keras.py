"""The losses with Keras: configurations, XLA, `fit`, custom loops, checkpoints."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tensorflow as tf

from ccp_dml.losses.base import MetricLoss
from tests.losses.cases import (
    BASIC,
    BATCH,
    DETAILED,
    SIZE,
    LossCase,
    arguments_of,
    batch,
    value_and_gradients,
)


@pytest.mark.parametrize("case", BASIC + DETAILED, ids=lambda case: case.id)
def test_config_round_trip(case: LossCase) -> None:
    loss = case.build()
    copy = tf.keras.losses.deserialize(tf.keras.losses.serialize(loss))
    assert type(copy) is type(loss)
    assert copy.get_config() == loss.get_config()
    for mine, other in zip(loss.trainable_variables, copy.trainable_variables):
        other.assign(mine)
    labels, embeddings = batch(1)
    assert copy(labels, embeddings).numpy() == loss(labels, embeddings).numpy()


@pytest.mark.parametrize("case", BASIC, ids=lambda case: case.id)
def test_config_holds_every_argument(case: LossCase) -> None:
    loss = case.build()
    assert set(loss.get_config()) == arguments_of(type(loss))


@pytest.mark.parametrize("case", BASIC, ids=lambda case: case.id)
def test_xla_gives_the_same_value_and_gradients(case: LossCase) -> None:
    loss = case.build()
    labels, embeddings = batch(2)
    compiled = tf.function(lambda y, e: value_and_gradients(loss, y, e), jit_compile=True)
    expected = value_and_gradients(loss, labels, embeddings)
    actual = compiled(tf.constant(labels), tf.constant(embeddings))
    np.testing.assert_allclose(actual[0], expected[0], rtol=1e-5)
    for mine, other in zip([actual[1], *actual[2]], [expected[1], *expected[2]]):
        np.testing.assert_allclose(mine, other, rtol=1e-4, atol=1e-6)


def _linear_model() -> tf.keras.Model:
    tf.keras.utils.set_random_seed(0)
    inputs = tf.keras.Input([SIZE])
    return tf.keras.Model(inputs, tf.keras.layers.Dense(SIZE, use_bias=False)(inputs))


@pytest.mark.parametrize("case", BASIC, ids=lambda case: case.id)
def test_fit_trains_the_model_and_the_variables_of_the_loss(case: LossCase) -> None:
    loss, model = case.build(), _linear_model()
    labels, images = batch(4)
    model.metric_loss = loss
    assert len(model.trainable_variables) == 1 + len(loss.trainable_variables)
    before = [variable.numpy() for variable in model.trainable_variables]
    expected = loss(labels, model(images)).numpy()
    model.compile(loss=loss, optimizer=tf.keras.optimizers.SGD(0.05))
    history = model.fit(images, labels, batch_size=BATCH, epochs=2, shuffle=False, verbose=0).history["loss"]
    np.testing.assert_allclose(history[0], expected, rtol=1e-5)
    for variable, start in zip(model.trainable_variables, before):
        assert not np.array_equal(variable.numpy(), start)


def test_proxies_attached_to_a_model_are_trained_and_saved_with_it(tmp_path: Path) -> None:
    model, loss = _linear_model(), LossCase("ccp/contrastive").build()
    model.proxies = loss.proxies
    before = loss.proxies.embeddings.numpy()
    model.compile(loss=loss, optimizer="sgd")
    labels, images = batch(5)
    model.fit(images, labels, batch_size=BATCH, verbose=0)
    moved = loss.proxies.embeddings.numpy()
    assert not np.array_equal(moved, before)
    model.save_weights(str(tmp_path / "weights"))
    loss.proxies.embeddings.assign(before)
    model.load_weights(str(tmp_path / "weights")).assert_existing_objects_matched()
    np.testing.assert_array_equal(loss.proxies.embeddings, moved)


def _subclassed() -> tf.keras.Model:
    class Subclassed(tf.keras.Model):
        def __init__(self) -> None:
            super().__init__()
            self.dense = tf.keras.layers.Dense(SIZE)

        def call(self, inputs: tf.Tensor) -> tf.Tensor:
            return self.dense(inputs)

    return Subclassed()


@pytest.mark.parametrize("eager", [False, True], ids=["graph", "eager"])
@pytest.mark.parametrize("path", ["proxy_anchor", "ccp/contrastive", "mdr/contrastive"])
@pytest.mark.parametrize(
    "make, trains",
    [
        (_linear_model, True),
        (_subclassed, True),
        (lambda: tf.keras.Sequential([tf.keras.layers.Dense(SIZE)]), False),
        (lambda: tf.keras.Sequential([tf.keras.layers.Dense(SIZE, input_shape=[SIZE])]), False),
    ],
    ids=["functional", "subclassed", "sequential", "built sequential"],
)
def test_fit_trains_the_variables_of_the_loss_or_says_that_it_does_not(make, trains, path, eager) -> None:
    model, loss = make(), LossCase(path).build()
    before = [variable.numpy() for variable in loss.trainable_variables]
    model.compile(loss=loss, optimizer="sgd", run_eagerly=eager)
    labels, images = batch(5)
    if trains or not before:
        model.fit(images, labels, batch_size=BATCH, verbose=0)
        moved = [np.abs(variable - start).max() for variable, start in zip(loss.trainable_variables, before)]
        assert all(moved)
    else:
        with pytest.raises(ValueError, match="does not train (embeddings|levels):0 of .* functional"):
            model.fit(images, labels, batch_size=BATCH, verbose=0)
        assert model.evaluate(images, labels, batch_size=BATCH, verbose=0) > 0
        functional = tf.keras.Model(model.inputs, model.outputs)
        functional.compile(loss=loss, optimizer="sgd")
        functional.fit(images, labels, batch_size=BATCH, verbose=0)
        assert not np.array_equal(loss.trainable_variables[0], before[0])


@pytest.mark.parametrize(
    "case",
    [
        LossCase("proxy_anchor"),
        LossCase("ccp/contrastive"),
        LossCase("margin", {"per_class": True, "beta_weight": 0.1}),
        LossCase("ccp/xbm/contrastive", {"memory_size": 16, "start_step": 1}),
        LossCase("mdr/ps/proxy_nca", {"normalization": "unit"}),
    ],
    ids=lambda case: case.id,
)
def test_a_keras_file_holds_the_variables_of_the_loss(case: LossCase, tmp_path: Path) -> None:
    model, loss = _linear_model(), case.build()
    model.compile(loss=loss, optimizer="sgd")
    labels, images = batch(5)
    model.fit(images, labels, batch_size=BATCH, epochs=2, verbose=0)
    model.save(tmp_path / "model.keras")
    again = tf.keras.models.load_model(tmp_path / "model.keras")
    assert len(again.loss.variables) == len(loss.variables)
    for mine, other in zip(loss.variables, again.loss.variables):
        np.testing.assert_array_equal(other, mine)
    histories = [
        m.fit(images, labels, batch_size=BATCH, epochs=2, shuffle=False, verbose=0) for m in (model, again)
    ]
    np.testing.assert_allclose(histories[1].history["loss"], histories[0].history["loss"], rtol=1e-5)


@tf.keras.utils.register_keras_serializable("tests")
class _Subclass(tf.keras.Model):
    def __init__(self, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.dense = tf.keras.layers.Dense(SIZE, use_bias=False)

    def call(self, inputs: tf.Tensor) -> tf.Tensor:
        return self.dense(inputs)

    def get_config(self) -> dict[str, Any]:
        return {}


def _attach(model: tf.keras.Model, loss: MetricLoss, place: str) -> None:
    if place == "layer":
        model.layers[-1].proxies = loss.proxies
    elif place == "list":
        model.tables = [loss.proxies]
    else:
        setattr(model, place, loss.proxies)


@pytest.mark.parametrize(
    "path, make, place",
    [
        ("proxy_nca", _linear_model, "proxies"),
        ("ccp/contrastive", _linear_model, "proxies"),
        ("mdr/proxy_nca", _linear_model, "a_name_before_the_loss"),
        ("ccp/mdr/contrastive", _linear_model, "list"),
        ("mdr/proxy_nca", _linear_model, "layer"),
        ("ccp/contrastive", _Subclass, "list"),
        ("mdr/proxy_nca", _Subclass, "proxies"),
        ("ccp/mdr/contrastive", _Subclass, "layer"),
    ],
)
def test_proxies_attached_to_a_model_are_saved_once(
    path: str, make: Callable[[], tf.keras.Model], place: str, tmp_path: Path
) -> None:
    model, loss = make(), LossCase(path).build()
    labels, images = batch(5)
    model(images)
    _attach(model, loss, place)
    model.compile(loss=loss, optimizer="adam")
    model.fit(images, labels, batch_size=BATCH, epochs=2, verbose=0)
    model.save(tmp_path / "model.keras")
    again = tf.keras.models.load_model(tmp_path / "model.keras")
    assert len(again.trainable_variables) == len(model.trainable_variables)
    for mine, other in zip(loss.variables, again.loss.variables, strict=True):
        np.testing.assert_array_equal(other, mine)
    if place != "layer" and make is _linear_model:
        assert again.loss.proxies in again.layers
    histories = [
        m.fit(images, labels, batch_size=BATCH, epochs=2, shuffle=False, verbose=0) for m in (model, again)
    ]
    np.testing.assert_allclose(histories[1].history["loss"], histories[0].history["loss"], rtol=1e-5)


def test_models_loaded_twice_have_proxies_of_their_own(tmp_path: Path) -> None:
    model, loss = _linear_model(), LossCase("proxy_nca").build()
    model.proxies = loss.proxies
    model.compile(loss=loss, optimizer="sgd")
    model.save(tmp_path / "model.keras")
    first, second = (tf.keras.models.load_model(tmp_path / "model.keras") for _ in range(2))
    first.loss.proxies.embeddings.assign(tf.zeros_like(loss.proxies.embeddings))
    np.testing.assert_array_equal(second.loss.proxies.embeddings, loss.proxies.embeddings)


@pytest.mark.parametrize("attribute", [None, "proxies", "metric_loss"])
@pytest.mark.parametrize("path", ["proxy_nca", "ccp/contrastive", "mdr/contrastive"])
def test_an_h5_file_of_a_loss_with_variables_is_refused(
    path: str, attribute: str | None, tmp_path: Path
) -> None:
    model, loss = _linear_model(), LossCase(path).build()
    if attribute is not None:
        setattr(model, attribute, loss.proxies if attribute == "proxies" else loss)
    model.compile(loss=loss, optimizer="sgd")
    model.save(tmp_path / "model.h5")
    with pytest.raises(ValueError, match="an `.h5` file has no values of the variables of the loss"):
        tf.keras.models.load_model(tmp_path / "model.h5")
    again = tf.keras.models.load_model(tmp_path / "model.h5", compile=False)
    np.testing.assert_array_equal(again.layers[1].kernel, model.layers[1].kernel)


def test_an_h5_file_keeps_a_loss_without_variables(tmp_path: Path) -> None:
    model = _linear_model()
    model.compile(loss=LossCase("triplet").build(), optimizer="sgd")
    model.save(tmp_path / "model.h5")
    assert tf.keras.models.load_model(tmp_path / "model.h5").loss.get_config() == model.loss.get_config()


@pytest.mark.parametrize("path", ["proxy_nca", "ccp/contrastive", "mdr/contrastive"])
@pytest.mark.parametrize("attribute", [None, "proxies", "metric_loss"])
def test_a_saved_model_of_a_loss_with_variables_is_refused(
    path: str, attribute: str | None, tmp_path: Path
) -> None:
    model, loss = _linear_model(), LossCase(path).build()
    if attribute is not None:
        setattr(model, attribute, loss.proxies if attribute == "proxies" else loss)
    model.compile(loss=loss, optimizer="sgd")
    with pytest.raises(ValueError, match="SavedModel cannot hold the variables of the loss"):
        model.save(tmp_path / "model", save_format="tf")
    tf.keras.Model(model.inputs, model.outputs).save(tmp_path / "embedding", save_format="tf")
    assert tf.keras.models.load_model(tmp_path / "embedding").predict(
        np.zeros([1, SIZE]), verbose=0
    ).shape == (1, SIZE)


def test_training_separates_the_classes() -> None:
    loss = LossCase("ccp/contrastive", {"positive_margin": 0.0, "negative_margin": 1.0}).build()
    labels, _ = batch(6)
    embeddings = tf.Variable(np.random.default_rng(6).normal(0.0, 0.1, (BATCH, SIZE)).astype(np.float32))
    optimizer = tf.keras.optimizers.Adam(0.05, jit_compile=False)

    @tf.function
    def step() -> None:
        with tf.GradientTape() as tape:
            value = loss(labels, embeddings)
        variables = [embeddings, *loss.trainable_variables]
        optimizer.apply_gradients(zip(tape.gradient(value, variables), variables))

    optimizer.build([embeddings, *loss.trainable_variables])
    for _ in range(150):
        step()
    figures = loss.diagnostics(labels, embeddings)
    assert np.max(figures["positive_distances"]) < np.min(figures["negative_distances"])


@pytest.mark.parametrize("case", BASIC, ids=lambda case: case.id)
def test_variables_are_tracked_and_survive_a_checkpoint(case: LossCase, tmp_path: Path) -> None:
    loss, other = case.build(seed=1), case.build(seed=2)
    expected = int(loss.proxies is not None) + int(case.options.get("per_class", False))
    assert len(loss.trainable_variables) == expected
    path = tf.train.Checkpoint(loss=loss).write(str(tmp_path / "checkpoint"))
    status = tf.train.Checkpoint(loss=other).read(path)
    status.assert_existing_objects_matched()
    for mine, restored in zip(loss.trainable_variables, other.trainable_variables):
        np.testing.assert_array_equal(restored, mine)


def test_name_and_scope() -> None:
    assert LossCase("contrastive").build().name == "contrastive"
    assert LossCase("ccp/contrastive").build().name == "ccp"
