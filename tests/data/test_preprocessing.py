from __future__ import annotations

import io
import math

import numpy as np
import pytest
import tensorflow as tf
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from ccp_dml.data.images import (
    WINDOW_ATTEMPTS,
    TestPreprocessing,
    TrainPreprocessing,
    central_crop_or_pad,
    crop_windows,
    decode_rgb,
    resize_shorter_side,
    test_image,
)
from tests.data.conftest import encode, smooth_pixels, train_image

quick = settings(max_examples=25, deadline=None, derandomize=True)


def bilinear(image: np.ndarray, height: int, width: int) -> np.ndarray:
    """Half-pixel bilinear resize, pixel by pixel."""

    def neighbours(place: int, old: int, new: int) -> tuple[int, int, float]:
        source = (place + 0.5) * old / new - 0.5
        low = math.floor(source)
        return min(max(low, 0), old - 1), min(max(low + 1, 0), old - 1), source - low

    result = np.empty((height, width, image.shape[2]))
    for y in range(height):
        top, bottom, down = neighbours(y, image.shape[0], height)
        for x in range(width):
            left, right, across = neighbours(x, image.shape[1], width)
            upper = image[top, left] * (1 - across) + image[top, right] * across
            lower = image[bottom, left] * (1 - across) + image[bottom, right] * across
            result[y, x] = upper * (1 - down) + lower * down
    return result


@pytest.mark.parametrize("size", [(20, 31), (45, 16), (16, 16)])
def test_shorter_side(size: tuple[int, int]) -> None:
    image = smooth_pixels(*size, seed=0)
    resized = resize_shorter_side(tf.constant(image), 24).numpy()
    height, width = (int(side * 24 / min(size)) for side in size)
    assert resized.dtype == np.float32
    np.testing.assert_allclose(resized, bilinear(image.astype(np.float64), height, width), atol=1e-3)


def test_resized_sizes_are_float32_quotients_in_graphs_too() -> None:
    def shape(size: tf.Tensor) -> tf.Tensor:
        image = tf.zeros(tf.concat([size, [1]], 0), tf.uint8)
        return tf.shape(resize_shorter_side(image, 43))[:2]

    in_graph = tf.function(shape, input_signature=[tf.TensorSpec([2], tf.int32)])
    for side in range(1, 130, 3):
        ratio = np.float32(side) / np.float32(43)
        expected = [int(np.float32(side) / ratio), int(np.float32(side + 7) / ratio)]
        assert in_graph([side, side + 7]).numpy().tolist() == expected
        assert shape(tf.constant([side, side + 7])).numpy().tolist() == expected


@quick
@given(height=st.integers(1, 12), width=st.integers(1, 12), size=st.integers(1, 12))
def test_central_crop_or_pad(height: int, width: int, size: int) -> None:
    image = np.random.default_rng(0).random((height, width, 2)).astype(np.float32) + 1
    expected = np.zeros((size, size, 2), np.float32)
    for y in range(size):
        for x in range(size):
            row = y + (height - size) // 2 if height >= size else y - (size - height) // 2
            column = x + (width - size) // 2 if width >= size else x - (size - width) // 2
            if 0 <= row < height and 0 <= column < width:
                expected[y, x] = image[row, column]
    np.testing.assert_array_equal(central_crop_or_pad(tf.constant(image), size), expected)


@pytest.mark.parametrize("image_format", ["PNG", "JPEG"])
def test_test_image_from_bytes_equals_that_from_pixels(image_format: str) -> None:
    encoded = encode(smooth_pixels(33, 50, seed=1), image_format)
    pixels = np.asarray(Image.open(io.BytesIO(encoded)))
    np.testing.assert_allclose(decode_rgb(tf.constant(encoded)), pixels, atol=2)
    config = TestPreprocessing(image_size=24, shorter_side=28)
    from_bytes = test_image(tf.constant(encoded), config)
    from_pixels = test_image(decode_rgb(tf.constant(encoded)), config)
    assert from_bytes.shape == (24, 24, 3)
    assert from_bytes.dtype == tf.float32
    np.testing.assert_array_equal(from_bytes, from_pixels)


def windows(height: int, width: int, count: int, **ranges: tuple[float, float]) -> np.ndarray:
    draws = tf.random.stateless_uniform([count, WINDOW_ATTEMPTS, 4], [1, 2])
    return crop_windows(tf.constant([[height, width]] * count), draws, **ranges).numpy()


@pytest.mark.parametrize("size", [(97, 64), (60, 75), (200, 200)])
def test_windows_keep_to_area_and_aspect(size: tuple[int, int]) -> None:
    top, left, height, width = windows(
        *size, count=500, area_range=(0.16, 1.0), aspect_range=(3 / 4, 4 / 3)
    ).T.astype(np.float64)
    assert (top >= 0).all()
    assert (left >= 0).all()
    assert (top + height <= size[0]).all()
    assert (left + width <= size[1]).all()
    # Up to rounding of both sides to pixels.
    assert ((height + 0.51) * (width + 0.51) >= 0.16 * size[0] * size[1]).all()
    assert ((width + 0.51) / (height - 0.51) >= 3 / 4).all()
    assert ((width - 0.51) / (height + 0.51) <= 4 / 3).all()
    assert (height * width).min() < 0.25 * size[0] * size[1]
    assert len(np.unique(top)) > 10
    assert len(np.unique(left)) > 10


def test_windows_fall_back_to_the_largest_centred_one() -> None:
    """An image 8 times as wide as high has no window of 90 % of its area with an aspect below 4 / 3."""
    found = windows(30, 240, count=5, area_range=(0.9, 1.0), aspect_range=(3 / 4, 4 / 3))
    np.testing.assert_array_equal(found, [[0, 100, 30, 40]] * 5)
    found = windows(240, 30, count=5, area_range=(0.9, 1.0), aspect_range=(3 / 4, 4 / 3))
    np.testing.assert_array_equal(found, [[100, 0, 40, 30]] * 5)


def test_first_window_that_fits_is_taken() -> None:
    draws = np.full((WINDOW_ATTEMPTS, 4), 0.5, np.float32)
    draws[0] = [1, 1, 0, 0]  # The whole area with aspect 2: too wide for a square.
    draws[1] = [0, 0.5, 0.25, 0.75]  # A quarter of the area, aspect 1: 50 x 50.
    found = crop_windows(
        tf.constant([[100, 100]]),
        tf.constant(draws[np.newaxis]),
        area_range=(0.25, 1.0),
        aspect_range=(0.5, 2.0),
    )
    np.testing.assert_array_equal(found, [[int(0.25 * 51), int(0.75 * 51), 50, 50]])


def test_windows_of_a_batch_are_those_of_each_image_alone() -> None:
    sizes = np.array([[97, 64], [30, 240], [500, 375], [1, 1]], np.int32)
    draws = tf.random.stateless_uniform([len(sizes), WINDOW_ATTEMPTS, 4], [3, 4])
    ranges = {"area_range": (0.5, 1.0), "aspect_range": (3 / 4, 4 / 3)}
    together = crop_windows(tf.constant(sizes), draws, **ranges)
    alone = [
        crop_windows(tf.constant(sizes[i : i + 1]), draws[i : i + 1], **ranges)[0] for i in range(len(sizes))
    ]
    np.testing.assert_array_equal(together, alone)


@pytest.mark.parametrize("image_format", ["PNG", "JPEG"])
def test_train_image_is_a_resized_window(image_format: str) -> None:
    """Coordinates as pixel values show which window was taken, and whether it was mirrored."""
    rows, columns = np.mgrid[0:80, 0:120]
    encoded = encode(np.stack([2 * rows, 2 * columns, 0 * rows], -1).astype(np.uint8), image_format)
    config = TrainPreprocessing(image_size=16)
    mirrored = 0
    for number in range(20):
        image = train_image(tf.constant(encoded), config, tf.constant([7, number])).numpy()
        assert image.shape == (16, 16, 3)
        down, across = image[:, 8, 0] / 2, image[8, :, 1] / 2
        mirrored += across[0] > across[-1]
        height, width = np.ptp(down) * 16 / 15, np.ptp(across) * 16 / 15
        assert (np.diff(down) > 0).all(), "never upside down"
        assert -1 <= down.min() <= down.max() <= 80
        assert -1 <= across.min() <= across.max() <= 120
        assert 0.12 <= height * width / (80 * 120) <= 1.05
        assert 0.65 <= width / height <= 1.5
    assert 4 <= mirrored <= 16


@pytest.mark.parametrize("image_format", ["PNG", "JPEG"])
def test_train_image_depends_on_the_seed_alone(image_format: str) -> None:
    encoded = tf.constant(encode(smooth_pixels(40, 40, seed=2), image_format))
    config = TrainPreprocessing(image_size=16)
    images = [train_image(encoded, config, tf.constant([3, number])).numpy() for number in (0, 1, 0)]
    np.testing.assert_array_equal(images[0], images[2])
    assert np.abs(images[0] - images[1]).max() > 1


def test_whole_image_without_flip() -> None:
    pixels = smooth_pixels(16, 16, seed=3)
    config = TrainPreprocessing(16, area_range=(1.0, 1.0), aspect_range=(1.0, 1.0), flip=False)
    image = train_image(tf.constant(encode(pixels, "PNG")), config, tf.constant([0, 0]))
    np.testing.assert_array_equal(image, pixels)


def test_an_image_of_one_pixel() -> None:
    encoded = tf.constant(encode(np.full((1, 1, 3), 9, np.uint8), "PNG"))
    assert (train_image(encoded, TrainPreprocessing(4), tf.constant([0, 0])).numpy() == 9).all()
    assert (test_image(encoded, TestPreprocessing(4, 4)).numpy() == 9).all()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"image_size": 0}, "image_size must be at least 1, found 0"),
        ({"area_range": (0.0, 1.0)}, "area_range"),
        ({"area_range": (0.5, 1.5)}, "area_range"),
        ({"aspect_range": (2.0, 1.0)}, "aspect_range"),
    ],
)
def test_bad_options(options: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        TrainPreprocessing(**{"image_size": 8, **options})


def test_bad_test_options() -> None:
    with pytest.raises(ValueError, match="shorter_side must be at least 1, found 8 and 0"):
        TestPreprocessing(8, 0)


BOX = (7, 5, 21, 30)


@pytest.mark.parametrize("image_format", ["PNG", "JPEG"])
def test_the_box_is_the_image(image_format: str) -> None:
    top, left, height, width = BOX
    whole = decode_rgb(tf.constant(encode(smooth_pixels(33, 50, seed=1), image_format)))
    part = whole.numpy()[top : top + height, left : left + width]
    encoded = tf.constant(encode(smooth_pixels(33, 50, seed=1), image_format))
    box = tf.constant(BOX)
    config = TestPreprocessing(image_size=24, shorter_side=28)
    # Where a JPEG is cut, the upsampling of its colors misses the neighbours.
    tolerance = {"PNG": 0, "JPEG": 12}[image_format]
    np.testing.assert_allclose(decode_rgb(encoded, box), part, atol=tolerance)
    expected = test_image(tf.constant(part), config)
    np.testing.assert_allclose(test_image(encoded, config, box), expected, atol=tolerance)
    np.testing.assert_array_equal(test_image(whole, config, box), expected)
    lossless = tf.constant(encode(part, "PNG"))
    for number in range(5):
        seed = tf.constant([3, number])
        train = TrainPreprocessing(image_size=16)
        expected = train_image(lossless, train, seed)
        np.testing.assert_allclose(train_image(encoded, train, seed, box), expected, atol=tolerance)
