from __future__ import annotations

import numpy as np
import pytest
import tensorflow as tf

from ccp_dml.evaluation.embedding import Embedder, LabeledImages, embed, evaluate_images
from ccp_dml.evaluation.metrics import evaluate_retrieval


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
def test_embeds_in_inference_mode_in_order_with_a_short_last_batch(images, normalization):
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


def test_half_precision_embeddings_come_out_in_float32(images):
    assert embed(lambda x, training: tf.cast(x[:, 0, 0], tf.float16), [images], "unit").dtype == np.float32


def test_batches_may_carry_labels(images):
    batches = tf.data.Dataset.from_tensor_slices((images, np.arange(11))).batch(4)
    model = small_model()
    found, expected = embed(model, batches), embed(model, batches.map(lambda x, _: x))
    np.testing.assert_array_equal(found, expected)


def test_evaluates_self_retrieval_and_query_gallery(images):
    labels = np.array([0, 0, 1, 1, 2, 2, 0, 1, 2, 0, 1])
    embedder = Embedder(small_model(), "unit")
    embeddings = embedder([images])
    alone = evaluate_images(embedder, LabeledImages([images[:5], images[5:]], labels), recall_at=(1, 3))
    np.testing.assert_allclose(alone.embeddings, embeddings, atol=1e-6)
    assert alone.result.means() == evaluate_retrieval(embeddings, labels, recall_at=(1, 3)).means()
    ids = np.arange(11)
    both = evaluate_images(
        embedder,
        LabeledImages([images[:6]], labels[:6], ids[:6]),
        LabeledImages([images], labels, ids),
    )
    np.testing.assert_array_equal(both.result.num_positives, alone.result.num_positives[:6])
    np.testing.assert_array_equal(both.result.map_at_r, alone.result.map_at_r[:6])
    assert both.gallery_embeddings.shape == (11, 5)


def test_bad_input_is_named(images):
    with pytest.raises(ValueError, match="normalization is 'l2'"):
        Embedder(small_model(), "l2")
    with pytest.raises(ValueError, match="no image"):
        embed(small_model(), [])
    with pytest.raises(ValueError, match="query_labels must have shape"):
        evaluate_images(Embedder(small_model()), LabeledImages([images], np.zeros(10)))
