"""EfficientNet-Lite0: its ImageNet weights on photographs, image sizes, random weights."""

from __future__ import annotations

import numpy as np
import pytest
import skimage.data
import tensorflow as tf

from ccp_dml.models.backbones import registry
from ccp_dml.models.backbones.weights import read_arrays

TIGER_CAT, EGYPTIAN_CAT, ESPRESSO = 282, 285, 967


def _classify(backbone: tf.keras.Model, photograph: np.ndarray) -> np.ndarray:
    """Class probabilities of the central 224 pixels, after the central square was resized to 256."""
    side = min(photograph.shape[:2])
    image = tf.image.resize_with_crop_or_pad(tf.cast(photograph, tf.float32), side, side)
    image = tf.image.resize_with_crop_or_pad(tf.image.resize(image, (256, 256)), 224, 224)
    features = tf.reduce_mean(backbone(image[tf.newaxis]), axis=[1, 2])
    arrays = read_arrays(registry.weights_path("efficientnet_lite0", "imagenet"))
    return tf.nn.softmax(features @ arrays["classifier/kernel"] + arrays["classifier/bias"])[0].numpy()


def test_a_cat_is_classified_as_a_cat(imagenet_backbone):
    probabilities = _classify(imagenet_backbone, skimage.data.chelsea())
    assert probabilities[TIGER_CAT] == pytest.approx(0.39, abs=0.01)
    assert probabilities[EGYPTIAN_CAT] == pytest.approx(0.36, abs=0.01)
    assert list(np.argsort(probabilities)[::-1][:2]) == [TIGER_CAT, EGYPTIAN_CAT]


def test_a_cup_of_coffee_is_classified_as_espresso(imagenet_backbone):
    probabilities = _classify(imagenet_backbone, skimage.data.coffee())
    assert np.argmax(probabilities) == ESPRESSO
    assert probabilities[ESPRESSO] == pytest.approx(0.95, abs=0.01)


def test_the_weights_file_is_small_enough_to_be_committed():
    assert registry.weights_path("efficientnet_lite0", "imagenet").stat().st_size <= 9.5e6


@pytest.mark.parametrize("size, features", [((64, 64), (2, 2)), ((70, 33), (3, 2))])
def test_any_image_size(imagenet_backbone, size, features):
    assert imagenet_backbone(np.zeros((1, *size, 3), np.float32)).shape == (1, *features, 1280)


def test_random_weights_have_the_same_shapes_and_normalisation_that_trains(imagenet_backbone):
    model = registry.build("efficientnet_lite0", "random")

    def shapes(variables):
        return sorted(tuple(variable.shape) for variable in variables)

    assert shapes(model.weights) == shapes(imagenet_backbone.weights)
    norms = [layer for layer in model.layers if isinstance(layer, tf.keras.layers.BatchNormalization)]
    kernels = imagenet_backbone.trainable_variables
    assert len(norms) == len(kernels) == 49
    assert len(model.trainable_variables) == len(kernels) + 2 * len(norms)


def test_random_weights_keep_the_scale_of_the_signal():
    images = np.random.default_rng(0).uniform(0, 255, (4, 64, 64, 3)).astype(np.float32)
    features = registry.build("efficientnet_lite0", "random")(images, training=True)
    assert 0.1 < float(tf.math.reduce_std(features)) < 10
