"""The backbones that are built by Keras."""

from __future__ import annotations

import numpy as np
import pytest
import tensorflow as tf

from ccp_dml.models.backbones import registry
from ccp_dml.models.layers import PixelScaling

KERAS = {
    "resnet50": (tf.keras.applications.ResNet50, tf.keras.applications.resnet.preprocess_input, 2048),
    "resnet50_v2": (tf.keras.applications.ResNet50V2, tf.keras.applications.resnet_v2.preprocess_input, 2048),
    "efficientnet_b0": (tf.keras.applications.EfficientNetB0, None, 1280),
}
IMAGES = np.random.default_rng(0).uniform(0, 255, (2, 32, 32, 3)).astype(np.float32)


def _norms(model: tf.keras.Model) -> list[tf.keras.layers.Layer]:
    return [layer for layer in model.layers if isinstance(layer, tf.keras.layers.BatchNormalization)]


@pytest.fixture(
    scope="module",
    params=["efficientnet_b0", *(pytest.param(name, marks=pytest.mark.slow) for name in list(KERAS)[:2])],
)
def backbones(request, tmp_path_factory) -> tuple[str, tf.keras.Model, tf.keras.Model]:
    """The name, Keras's own network with random weights, and ours that has read them from its file."""
    name = request.param
    theirs = KERAS[name][0](include_top=False, weights=None, input_shape=(32, 32, 3))
    generator = np.random.default_rng(0)
    for layer in _norms(theirs):
        size = layer.gamma.shape
        layer.set_weights([generator.uniform(0.5, 1.5, size) for _ in range(4)])
    file = tmp_path_factory.mktemp(name) / "weights_notop.h5"
    theirs.save_weights(file)
    return name, theirs, registry.build(name, str(file), image_size=32)


def test_features_are_those_of_keras_on_images_that_keras_has_scaled(backbones):
    name, theirs, ours = backbones
    _, preprocess, channels = KERAS[name]
    assert ours.output_shape == (None, 1, 1, channels)
    if preprocess is None:
        # Published models divide by the deviation once; a new one has a normalisation that does nothing.
        mean, std = np.array([0.485, 0.456, 0.406]), np.array([0.229, 0.224, 0.225])
        scaled = ((IMAGES / 255 - mean) / std * 255).astype(np.float32)
    else:
        scaled = preprocess(IMAGES.copy())
    expected = theirs(scaled).numpy()
    assert expected.std() > 0
    np.testing.assert_allclose(ours(IMAGES), expected, atol=1e-4 * np.abs(expected).max())


def test_loaded_normalisation_is_frozen_and_gradients_reach_all_other_weights(backbones):
    _, _, ours = backbones
    norms = _norms(ours)
    assert norms
    assert not any(layer.trainable for layer in norms)
    with tf.GradientTape() as tape:
        features = ours(IMAGES, training=True)
        loss = tf.reduce_sum(features * np.random.default_rng(1).normal(size=features.shape))
    np.testing.assert_array_equal(features, ours(IMAGES, training=False))
    gradients = tape.gradient(loss, ours.trainable_variables)
    assert all(np.any(gradient != 0) for gradient in gradients)


def test_another_networks_file_is_refused(backbones, tmp_path):
    name, _, _ = backbones
    other = tf.keras.Sequential([tf.keras.layers.Dense(2, input_shape=(3,))])
    other.save_weights(tmp_path / "other.h5")
    with pytest.raises(ValueError, match=f"other.h5 does not belong to the model '{name}'"):
        registry.build(name, str(tmp_path / "other.h5"), image_size=32)


@pytest.mark.slow
def test_random_weights_follow_the_seed_and_normalisation_trains():
    one, same, other = (
        registry.build("efficientnet_b0", "random", image_size=32, seed=seed) for seed in (1, 1, 2)
    )
    assert all(layer.trainable for layer in _norms(one))
    for first, second in zip(one.get_weights(), same.get_weights()):
        np.testing.assert_array_equal(first, second)
    kernels = [
        [variable.numpy() for variable in model.trainable_variables if "kernel" in variable.name]
        for model in (one, other)
    ]
    assert len(kernels[0]) > 80
    assert all(np.abs(first - second).max() > 1e-3 for first, second in zip(*kernels))


@pytest.mark.parametrize("name", ["resnet50", "resnet50_v2"])
def test_pixels_are_scaled_as_keras_does(name):
    scaling = PixelScaling(**registry.BACKBONES[name].pixel_scaling)
    np.testing.assert_allclose(scaling(IMAGES), KERAS[name][1](IMAGES.copy()), atol=1e-4)


def test_images_that_are_too_small_are_refused():
    with pytest.raises(ValueError, match="32 pixels at least; found 16"):
        registry.build("resnet50", "random", image_size=16)
