"""Properties of every loss and wrapper in the registry: precision, invariance, checkpoints, `fit`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tensorflow as tf

from ccp_dml.losses import registry
from ccp_dml.losses.base import MetricLoss
from tests.losses.cases import (
    BASIC,
    BATCH,
    NESTED,
    SIZE,
    WRAPPED,
    LossCase,
    batch,
    single_paths,
    value_and_gradients,
)

_CASES = [*BASIC, *WRAPPED]
_EACH = pytest.mark.parametrize("case", _CASES, ids=lambda case: case.id)
# Half a unit in the last place: the largest relative error of rounding a float32.
_ROUNDING = {"float16": 2.0**-11, "bfloat16": 2.0**-8}
# A mean over active terms jumps where rounding makes one of them active.
_JUMPS = ("contrastive", "margin", "triplet")


def test_every_name_of_the_registry_has_a_case() -> None:
    names = {name for case in _CASES for name in case.path.split("/")}
    assert names == {*registry.LOSSES, *registry.WRAPPERS}


def _used(case: LossCase) -> MetricLoss:
    """A loss that has seen two batches."""
    loss = case.build()
    for seed in (0, 1):
        loss(*batch(seed))
    return loss


@pytest.mark.parametrize("dtype", _ROUNDING)
@_EACH
def test_half_precision_is_float32_of_rounded_embeddings(case: LossCase, dtype: str) -> None:
    labels, embeddings = batch(3)
    rounded = tf.cast(embeddings, dtype)
    value, gradient, of_variables = value_and_gradients(_used(case), labels, rounded)
    expected = value_and_gradients(_used(case), labels, tf.cast(rounded, tf.float32))
    assert value.dtype == tf.float32
    assert gradient.dtype == rounded.dtype
    np.testing.assert_allclose(value, expected[0], rtol=1e-6)
    # The gradient is rounded once more, on its way back through the cast.
    np.testing.assert_allclose(
        tf.cast(gradient, tf.float32), expected[1], rtol=1.01 * _ROUNDING[dtype], atol=1e-6
    )
    for mine, other in zip(of_variables, expected[2]):
        np.testing.assert_allclose(tf.convert_to_tensor(mine), tf.convert_to_tensor(other), rtol=1e-5)


@pytest.mark.parametrize("dtype", _ROUNDING)
@pytest.mark.parametrize(
    "case", [case for case in _CASES if case.path.split("/")[-1] not in _JUMPS], ids=lambda case: case.id
)
def test_half_precision_differs_by_rounding_only(case: LossCase, dtype: str) -> None:
    """To first order |L(e) - L(rounded e)| <= rounding * sum |dL/de| |e|; half as much again for the rest."""
    labels, embeddings = batch(3)
    value, gradient, _ = value_and_gradients(_used(case), labels, embeddings)
    bound = _ROUNDING[dtype] * np.sum(np.abs(gradient * embeddings))
    rounded = _used(case)(labels, tf.cast(embeddings, dtype))
    assert abs(float(rounded) - float(value)) <= 1.5 * bound + 1e-6 * float(value)


@_EACH
def test_rotating_embeddings_and_proxies_over_several_batches_does_not_matter(case: LossCase) -> None:
    rotation = np.linalg.qr(np.random.default_rng(0).normal(size=(SIZE, SIZE)))[0].astype(np.float32)
    loss, rotated = case.build(), case.build()
    if rotated.proxies is not None:
        rotated.proxies.embeddings.assign(rotated.proxies.embeddings @ rotation)
    for seed in range(3):
        labels, embeddings = batch(seed)
        np.testing.assert_allclose(
            rotated(labels, embeddings @ rotation), loss(labels, embeddings), rtol=1e-4
        )


@pytest.mark.parametrize(
    "case", [case for case in WRAPPED if "ps" not in case.path], ids=lambda case: case.id
)
def test_the_order_of_a_batch_does_not_matter_to_wrappers(case: LossCase) -> None:
    """Without proxy synthesis, which mixes neighbours."""
    labels, embeddings = batch(2)
    order = np.random.default_rng(2).permutation(BATCH)
    value, gradient, _ = value_and_gradients(_used(case), labels, embeddings)
    permuted, permuted_gradient, _ = value_and_gradients(_used(case), labels[order], embeddings[order])
    np.testing.assert_allclose(permuted, value, rtol=1e-5)
    np.testing.assert_allclose(permuted_gradient, gradient.numpy()[order], rtol=1e-3, atol=1e-5)


@_EACH
def test_training_continues_from_a_checkpoint_with_the_same_values(case: LossCase, tmp_path: Path) -> None:
    def start() -> dict[str, Any]:
        loss, points = case.build(1), tf.Variable(batch(1)[1])
        optimizer = tf.keras.optimizers.Adam(0.01, jit_compile=False)
        optimizer.build([points, *loss.trainable_variables])
        return {"loss": loss, "optimizer": optimizer, "points": points}

    def steps(run: dict[str, Any], seeds: range) -> list[float]:
        values = []
        for seed in seeds:
            value, gradient, of_variables = value_and_gradients(run["loss"], batch(seed)[0], run["points"])
            variables = [run["points"], *run["loss"].trainable_variables]
            run["optimizer"].apply_gradients(zip([gradient, *of_variables], variables))
            values.append(float(value))
        return values

    first, resumed = start(), start()
    steps(first, range(3))
    path = tf.train.Checkpoint(**first).write(str(tmp_path / "checkpoint"))
    expected = steps(first, range(3, 6))
    tf.train.Checkpoint(**resumed).read(path).assert_consumed()
    assert steps(resumed, range(3, 6)) == expected


@pytest.mark.slow
@pytest.mark.parametrize("path", [*single_paths(), *(case.path for case in NESTED)])
def test_fit_continues_after_saving_and_loading(path: str, tmp_path: Path) -> None:
    """The copy is made from the configuration, its state from a checkpoint."""
    options = {"normalization": registry.normalizations(path)[0]}
    options |= {"memory_size": 10, "start_step": 2} if "xbm" in path else {}
    options |= {"per_class": True, "beta": 0.9} if path.endswith("margin") else {}
    labels, images = batch(4)

    def model_with(loss: MetricLoss) -> tf.keras.Model:
        inputs = tf.keras.Input([SIZE])
        layer = tf.keras.layers.Dense(
            SIZE, use_bias=False, kernel_initializer=tf.keras.initializers.Identity()
        )
        model = tf.keras.Model(inputs, layer(inputs))
        model.metric_loss = loss
        model.compile(loss=loss, optimizer=tf.keras.optimizers.Adam(0.01, jit_compile=False))
        model.optimizer.build(model.trainable_variables)
        return model

    def fitted(model: tf.keras.Model) -> list[float]:
        history = model.fit(images, labels, batch_size=BATCH, epochs=3, shuffle=False, verbose=0)
        return history.history["loss"]

    loss = registry.build(path, num_classes=5, embedding_size=SIZE, options=options)
    model = model_with(loss)
    assert len(model.trainable_variables) == 1 + len(loss.trainable_variables)
    start = [variable.numpy() for variable in model.trainable_variables]
    fitted(model)
    for variable, before in zip(model.trainable_variables, start):
        assert not np.array_equal(variable, before), variable.name
    saved = tf.train.Checkpoint(model=model).write(str(tmp_path / "model"))
    copy = tf.keras.losses.deserialize(tf.keras.losses.serialize(loss))
    assert copy.get_config() == loss.get_config()
    other = model_with(copy)
    tf.train.Checkpoint(model=other).read(saved).assert_existing_objects_matched()
    np.testing.assert_allclose(fitted(other), fitted(model), rtol=1e-6)
