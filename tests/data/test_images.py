"""Decoding, resizing and cropping of images, and the preprocessing of test images."""

from __future__ import annotations

import dataclasses
import io
import math

import numpy as np
import pytest
import tensorflow as tf
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from ccp_dml.data import images
from ccp_dml.data.images import (
    TestPreprocessing,
    decode_rgb,
    image_size,
    resize_shorter_side,
    test_image,
)
from ccp_dml.data.options import ImageOptions
from ccp_dml.data.resizing import central_crop_or_pad, either
from tests.data.conftest import encode, noise, padded_square, smooth_pixels

quick = settings(max_examples=25, deadline=None, derandomize=True)

JPEG_OPTIONS = {
    "plain": {},
    "progressive": {"progressive": True},
    "with metadata": {"exif": b"Exif\0\0" + b"\xff\xc0" * 200, "comment": b"\xff\xc0\x00\x11"},
    "with a color profile": {"icc_profile": b"\xff\xc2" * 40_000},
}


@pytest.mark.parametrize("name", JPEG_OPTIONS)
@pytest.mark.parametrize("mode", ["RGB", "L"])
def test_size_of_a_jpeg(name: str, mode: str) -> None:
    encoded = io.BytesIO()
    Image.new(mode, (300, 17)).save(encoded, "jpeg", **JPEG_OPTIONS[name])
    assert image_size(encoded.getvalue()) == (17, 300)
    # Fill bytes may precede a marker.
    assert image_size(encoded.getvalue()[:2] + b"\xff\xff" + encoded.getvalue()[2:]) == (17, 300)


@pytest.mark.parametrize("stray", [b"\x00", b"\xff\x00", b"\x12\x34\xff", bytes(20)])
@pytest.mark.parametrize("before", [b"\xff\xdb", b"\xff\xc0"])
def test_stray_bytes_between_segments_are_skipped_as_by_decoders(stray: bytes, before: bytes) -> None:
    content = encode(np.zeros((17, 30, 3), np.uint8), "jpeg").replace(before, stray + before, 1)
    assert image_size(content) == tf.io.decode_jpeg(content).shape[:2] == (17, 30)


def test_size_of_a_png() -> None:
    assert image_size(encode(np.zeros((300, 17, 3), np.uint8), "png")) == (300, 17)


@pytest.mark.parametrize(
    ("encoded", "message"),
    [
        (b"", "neither"),
        (b"GIF89a" + bytes(20), "neither"),
        (b"\xff\xd8\xff", "damaged"),
        (b"\xff\xd8\xff\xe0\x00\x00" + bytes(40), "damaged"),
        (b"\xff\xd8\xff\xda\x00\x02\xff\xc0\x00\x11\x08" + bytes(40), "damaged"),
        (b"\x89PNG\r\n\x1a\n" + bytes(8), "damaged"),
    ],
)
def test_size_of_a_damaged_header_is_an_error(encoded: bytes, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        image_size(encoded)


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
def test_the_shorter_side_is_resized_bilinearly(size: tuple[int, int]) -> None:
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


@pytest.mark.parametrize("antialias", [False, True])
@pytest.mark.parametrize("result", [(30, 24), (24, 30), (8, 40), (40, 40)])
@pytest.mark.parametrize("shape", [(40, 56), (61, 33), (20, 45), (7, 90)])
def test_height_and_width_of_a_test_image_may_differ(
    shape: tuple[int, int], result: tuple[int, int], antialias: bool
) -> None:
    """The shorter side is resized; then each side is cropped or padded."""
    image = tf.constant(noise(*shape))
    resized = resize_shorter_side(image, 32, antialias=antialias).numpy()
    expected = np.zeros([*result, 3], np.float32)
    begins = [
        (old - new) // 2 if old >= new else -((new - old) // 2) for old, new in zip(resized.shape, result)
    ]
    for y, x in np.ndindex(*result):
        row, column = y + begins[0], x + begins[1]
        if 0 <= row < resized.shape[0] and 0 <= column < resized.shape[1]:
            expected[y, x] = resized[row, column]
    found = test_image(image, TestPreprocessing(result, 32, antialias=antialias))
    np.testing.assert_allclose(found, expected, atol=0.05 if antialias else 0)


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


@pytest.mark.parametrize("shape", [(2, 3000), (3000, 2), (1, 5000), (7, 90), (90, 7)])
def test_long_images_have_the_pixels_of_the_resized_image(shape: tuple[int, int]) -> None:
    image = tf.constant(noise(*shape))
    config = TestPreprocessing(24, 28, antialias=False)
    expected = central_crop_or_pad(resize_shorter_side(image, 28), 24)
    np.testing.assert_array_equal(test_image(image, config), expected)
    expected = central_crop_or_pad(resize_shorter_side(image, 28, antialias=True), 24)
    found = test_image(image, dataclasses.replace(config, antialias=True))
    np.testing.assert_allclose(found, expected, atol=0.05)


def antialiased(image: np.ndarray, height: int, width: int) -> np.ndarray:
    """Antialiased resize of the middle axes, one after the other, with the weights of a triangle."""
    for axis, new in ((0, height), (1, width)):
        old = image.shape[axis]
        stretch = max(old / new, 1)
        rows = []
        for place in range(new):
            center = (place + 0.5) * old / new
            weights = [max(0, 1 - abs(pixel + 0.5 - center) / stretch) for pixel in range(old)]
            rows.append(np.average(image, axis, weights))
        image = np.stack(rows, axis)
    return image


@pytest.mark.parametrize("size", [(20, 31), (90, 61), (24, 300), (16, 16), (7, 5)])
def test_antialiasing_averages_over_the_covered_pixels(size: tuple[int, int]) -> None:
    image = noise(*size)
    resized = resize_shorter_side(tf.constant(image), 12, antialias=True).numpy()
    expected = antialiased(image.astype(np.float64), *(int(side * 12 / min(size)) for side in size))
    np.testing.assert_allclose(resized, expected, atol=0.01)


@pytest.mark.parametrize("size", [(3, 5), (12, 12)])
def test_antialiasing_changes_nothing_when_an_image_is_not_made_smaller(size: tuple[int, int]) -> None:
    image = tf.constant(noise(*size))
    found = resize_shorter_side(image, 12, antialias=True)
    np.testing.assert_allclose(found, resize_shorter_side(image, 12), atol=0.01)


@pytest.mark.parametrize("antialias", [False, True])
@pytest.mark.parametrize("shape", [(1, 100_000), (30_000, 2), (60_000, 1)])
def test_the_memory_for_a_long_image_is_that_of_its_pixels_and_the_result(
    shape: tuple[int, int], antialias: bool
) -> None:
    """The resized images would take 10 to 80 GB."""
    pixels = tf.fill([*shape, 3], tf.constant(9, tf.uint8))
    found = test_image(pixels, TestPreprocessing(227, 256, antialias=antialias))
    np.testing.assert_allclose(found, np.full([227, 227, 3], 9), atol=1e-5)


@pytest.mark.parametrize("image_format", ["PNG", "JPEG"])
def test_encoded_images_and_pixels_give_the_same_test_image(image_format: str) -> None:
    encoded = encode(smooth_pixels(33, 50, seed=1), image_format)
    pixels = np.asarray(Image.open(io.BytesIO(encoded)))
    np.testing.assert_allclose(decode_rgb(tf.constant(encoded)), pixels, atol=2)
    config = TestPreprocessing(image_size=24, shorter_side=28)
    from_bytes = test_image(tf.constant(encoded), config)
    from_pixels = test_image(decode_rgb(tf.constant(encoded)), config)
    assert from_bytes.shape == (24, 24, 3)
    assert from_bytes.dtype == tf.float32
    np.testing.assert_array_equal(from_bytes, from_pixels)


@pytest.mark.parametrize("shape", [(28, 28), (20, 31), (45, 16)])
@pytest.mark.parametrize("gray", [False, True])
def test_without_a_shorter_side_test_images_are_not_resized(shape: tuple[int, int], gray: bool) -> None:
    image = noise(*shape)
    expected = padded_square(image, 28, 127.5)
    if gray:
        expected = np.stack([expected.mean(axis=-1)] * 3, axis=-1)
    config = TestPreprocessing(28, None, padding=127.5, gray=gray)
    for form in (encode(image, "PNG"), image, image.astype(np.float32)):
        found = test_image(tf.constant(form), config).numpy()
        assert found.dtype == np.float32
        np.testing.assert_allclose(found, expected, rtol=0, atol=1e-4)


BOX = (7, 5, 21, 30)


@pytest.mark.parametrize("image_format", ["PNG", "JPEG"])
def test_test_images_are_cropped_to_their_boxes(image_format: str) -> None:
    top, left, height, width = BOX
    encoded = tf.constant(encode(smooth_pixels(33, 50, seed=1), image_format))
    full = decode_rgb(encoded)
    cropped = full.numpy()[top : top + height, left : left + width]
    box, config = tf.constant(BOX), TestPreprocessing(image_size=24, shorter_side=28)
    # At the edges of a decoded crop, JPEG upsamples colors without their neighbours.
    tolerance = {"PNG": 0, "JPEG": 12}[image_format]
    np.testing.assert_allclose(decode_rgb(encoded, box), cropped, atol=tolerance)
    expected = test_image(tf.constant(cropped), config)
    np.testing.assert_allclose(test_image(encoded, config, box), expected, atol=tolerance)
    np.testing.assert_array_equal(test_image(full, config, box), expected)


def test_an_image_of_one_pixel_is_enlarged() -> None:
    encoded = tf.constant(encode(np.full((1, 1, 3), 9, np.uint8), "PNG"))
    assert (test_image(encoded, TestPreprocessing(4, 4)).numpy() == 9).all()


def test_sizes_below_one_are_refused() -> None:
    with pytest.raises(ValueError, match="shorter_side must be at least 1, found 8 and 0"):
        TestPreprocessing(8, 0)


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({"image_size": 227, "test_shorter_side": 256}, TestPreprocessing(227, 256)),
        ({"image_size": (256, 128), "test_shorter_side": 144}, TestPreprocessing((256, 128), 144)),
        (
            {"image_size": 64, "test_shorter_side": 72, "antialias": False},
            TestPreprocessing(64, 72, antialias=False),
        ),
        ({"image_size": 32, "preprocessing": "cifar"}, TestPreprocessing(32, None, 127.5)),
        ({"image_size": 28, "preprocessing": "mnist"}, TestPreprocessing(28, None, gray=True)),
    ],
)
def test_options_give_the_preprocessing_of_test_images(options: dict, expected: TestPreprocessing) -> None:
    assert images.test_preprocessing(ImageOptions(**options)) == expected


def halved_or_tripled(value: tf.Tensor) -> tf.Tensor:
    return either(value % 2 == 0, lambda even: even // 2, lambda odd: 3 * odd + 1, value)


@pytest.mark.parametrize("way", ["eager", "function", "dataset"])
def test_either_takes_one_branch(way: str) -> None:
    run = halved_or_tripled if way == "eager" else tf.function(halved_or_tripled)
    if way == "dataset":
        found = list(tf.data.Dataset.range(4).map(halved_or_tripled).as_numpy_iterator())
    else:
        found = [int(run(tf.constant(number))) for number in range(4)]
    assert found == [0, 4, 1, 10]


def test_either_does_not_run_the_other_branch() -> None:
    def checked(value: tf.Tensor) -> tf.Tensor:
        return either(
            value > 0,
            lambda positive: positive,
            lambda other: tf.raw_ops.CheckNumerics(tensor=other / 0.0, message="run"),
            value,
        )

    assert float(tf.function(checked)(tf.constant(2.0))) == 2.0
    with pytest.raises(tf.errors.InvalidArgumentError):
        tf.function(checked)(tf.constant(-2.0))
