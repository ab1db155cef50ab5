"""Test-time crops: boxes, bilinear crops, and the mean of embeddings."""

from __future__ import annotations

import numpy as np
import pytest
import tensorflow as tf

from ccp_dml.models.embedding_model import AuxiliaryCrops, crop_boxes, with_test_crops

SIDE = 9
IMAGES = np.random.default_rng(0).uniform(0, 255, (3, SIDE, SIDE, 3)).astype(np.float32)


def _model() -> tf.keras.Model:
    images = tf.keras.Input((SIDE, SIDE, 3))
    dense = tf.keras.layers.Dense(4, kernel_initializer=tf.keras.initializers.GlorotUniform(seed=0))
    return tf.keras.Model(images, dense(tf.keras.layers.Flatten()(images)), name="model")


def test_boxes_are_within_the_image_with_the_areas_and_aspects_of_training_crops():
    boxes = crop_boxes(200)
    np.testing.assert_array_equal(boxes[:7], crop_boxes(7))
    assert boxes.min() >= 0
    assert boxes.max() <= 1 + 1e-6
    height, width = boxes[:, 2] - boxes[:, 0], np.abs(boxes[:, 3] - boxes[:, 1])
    assert (height > 0).all()
    area, aspect = height * width, width / height
    assert area.min() >= 0.16 - 1e-5
    assert 0.75 - 1e-5 <= aspect.min() < 0.8
    assert 1.25 < aspect.max() <= 4 / 3 + 1e-5
    mirrored = boxes[:, 3] < boxes[:, 1]
    assert 60 < mirrored.sum() < 140
    assert crop_boxes(0).shape == (0, 4)


def _crop(image: np.ndarray, box: np.ndarray) -> np.ndarray:
    """Bilinear samples at equal steps from the first to the last row and column of the box."""
    top, left, bottom, right = box.astype(np.float64) * (SIDE - 1)
    crop = np.zeros_like(image, np.float64)
    for row, y in enumerate(np.linspace(top, bottom, SIDE)):
        for column, x in enumerate(np.linspace(left, right, SIDE)):
            y0, x0 = min(int(y), SIDE - 2), min(int(x), SIDE - 2)
            for dy, dx in np.ndindex(2, 2):
                weight = (1 - abs(y - y0 - dy)) * (1 - abs(x - x0 - dx))
                crop[row, column] += weight * image[y0 + dy, x0 + dx]
    return crop


def test_an_embedding_is_the_mean_over_the_image_and_its_crops():
    model, count = _model(), 4
    boxes = crop_boxes(count)
    assert any(right < left for _, left, _, right in boxes)
    expected = [
        np.mean([model(version[np.newaxis].astype(np.float32))[0] for version in versions], axis=0)
        for versions in ([image, *(_crop(image, box) for box in boxes)] for image in IMAGES)
    ]
    averaged = with_test_crops(model, count)
    np.testing.assert_allclose(averaged(IMAGES), expected, rtol=1e-3, atol=1e-2)
    assert averaged.output_shape == (None, 4)
    assert [id(variable) for variable in averaged.weights] == [id(variable) for variable in model.weights]


def test_the_images_come_first():
    images = AuxiliaryCrops(2)(IMAGES)
    assert images.shape == (9, SIDE, SIDE, 3)
    np.testing.assert_array_equal(images[:3], IMAGES)


def test_no_crops_are_the_model_itself():
    model = _model()
    assert with_test_crops(model, 0) is model


def test_invalid_counts_and_unknown_sizes_are_refused():
    with pytest.raises(ValueError, match="count of test crops is -1; expected at least 0"):
        with_test_crops(_model(), -1)
    images = tf.keras.Input((None, None, 3))
    with pytest.raises(ValueError, match="known size"):
        with_test_crops(tf.keras.Model(images, tf.reduce_mean(images, [1, 2])), 1)
