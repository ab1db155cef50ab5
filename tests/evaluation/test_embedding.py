"""Embeddings of images, side by side, projected, and with too little memory."""

from __future__ import annotations

import math

import numpy as np
import pytest
import tensorflow as tf

from ccp_dml.errors import UserError
from ccp_dml.evaluation.embedding import Embedded, Embedder, SmallerBlocks, concatenate, embed, fit_pca


def small_model() -> tf.keras.Model:
    tf.keras.utils.set_random_seed(0)
    return tf.keras.Sequential(
        [
            tf.keras.layers.Input([4, 4, 3]),
            tf.keras.layers.Flatten(),
            tf.keras.layers.BatchNormalization(),
            tf.keras.layers.Dropout(0.5),
            tf.keras.layers.Dense(5, use_bias=False),
        ]
    )


@pytest.fixture
def images() -> np.ndarray:
    return np.random.default_rng(0).uniform(0, 3, [11, 4, 4, 3]).astype(np.float32)


@pytest.mark.parametrize("normalization", ["none", "unit", "lipschitz"])
def test_images_are_embedded_in_inference_mode_and_in_order_with_a_short_last_batch(images, normalization):
    model = small_model()
    raw = model(images, training=False).numpy()
    norms = np.linalg.norm(raw, axis=1, keepdims=True)
    expected = {"none": raw, "unit": raw / norms, "lipschitz": raw / np.maximum(norms, 1)}[normalization]
    found = embed(model, tf.data.Dataset.from_tensor_slices(images).batch(4), normalization)
    assert found.dtype == np.float32
    np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-7)


def test_an_embedder_traces_once_and_follows_the_weights(images):
    model = small_model()
    traces = []

    def counted(batch, training):
        traces.append(training)
        return model(batch, training=training)

    embedder = Embedder(counted, "none")
    batches = tf.data.Dataset.from_tensor_slices(images).batch(4)
    before = embedder(batches)
    model.layers[-1].kernel.assign(model.layers[-1].kernel * 2)
    np.testing.assert_allclose(embedder(batches), 2 * before, rtol=1e-6)
    assert traces == [False]


def test_embeddings_of_half_precision_become_float32(images):
    assert embed(lambda x, training: tf.cast(x[:, 0, 0], tf.float16), [images], "unit").dtype == np.float32


def test_batches_may_carry_labels(images):
    batches = tf.data.Dataset.from_tensor_slices((images, np.arange(11))).batch(4)
    model = small_model()
    found, expected = embed(model, batches), embed(model, batches.map(lambda x, _: x))
    np.testing.assert_array_equal(found, expected)


def test_errors_name_the_bad_input(images):
    with pytest.raises(ValueError, match="normalization is 'l2'"):
        Embedder(small_model(), "l2")
    with pytest.raises(ValueError, match="no image"):
        embed(small_model(), [])


def fail_above(size: int, blocks: SmallerBlocks, sizes: list[int]) -> str:
    sizes.append(blocks.batch_size)
    if blocks.batch_size > size:
        raise tf.errors.ResourceExhaustedError(None, None, "out of memory")
    return "done"


def test_a_computation_without_memory_is_repeated_in_smaller_blocks_which_stay(capsys):
    blocks, sizes = SmallerBlocks(100), []
    for _ in range(2):
        assert blocks(lambda: fail_above(30, blocks, sizes)) == "done"
    assert sizes == [100, 25, 25]
    assert capsys.readouterr().err == (
        "warning: --evaluation_batch_size=100: too little memory to embed or search; going on with 25\n"
    )


def test_blocks_become_smaller_only_once():
    blocks, sizes = SmallerBlocks(100), []
    with pytest.raises(UserError, match="not even 25 images at once; expected a smaller number"):
        blocks(lambda: fail_above(10, blocks, sizes))
    assert sizes == [100, 25]


def test_smaller_blocks_do_not_hide_other_errors():
    with pytest.raises(ZeroDivisionError):
        SmallerBlocks(100)(lambda: 1 / 0)


def test_concatenated_embeddings_equal_those_computed_by_hand():
    generator = np.random.default_rng(0)
    models = [
        Embedded(*(generator.normal(size=(rows, 3)).astype(np.float32) for rows in (5, 4))) for _ in range(2)
    ]
    plain, unit = concatenate(models), concatenate(models, "unit")
    assert plain.training is None
    for part in ("test", "gallery"):
        for row in range(len(getattr(plain, part))):
            halves = [getattr(model, part)[row].astype(np.float64) for model in models]
            np.testing.assert_array_equal(getattr(plain, part)[row], np.float32([*halves[0], *halves[1]]))
            lengths = [math.sqrt(sum(value**2 for value in half)) for half in halves]
            expected = [value / length for half, length in zip(halves, lengths) for value in half]
            np.testing.assert_allclose(getattr(unit, part)[row], expected, rtol=1e-6)


def test_the_pca_is_fitted_on_the_training_embeddings():
    generator = np.random.default_rng(1)
    training = (generator.normal(size=(60, 5)) * [5, 1, 4, 0.1, 3] + 7).astype(np.float32)
    project = fit_pca(training, 3)
    centered = training.astype(np.float64) - training.mean(axis=0, dtype=np.float64)
    _, vectors = np.linalg.eigh(centered.T @ centered)
    expected = centered @ vectors[:, ::-1][:, :3]
    found = project(training)
    assert found.dtype == np.float32
    np.testing.assert_allclose(np.abs(found), np.abs(expected), atol=1e-4)
    with pytest.raises(ValueError, match="at most 5 components, 6 were asked for"):
        fit_pca(training, 6)
