"""The augmentation of training images: random resized crops, and shifts of small images."""

from __future__ import annotations

import numpy as np
import pytest
import tensorflow as tf

from ccp_dml.data.augmentation import (
    WINDOW_ATTEMPTS,
    PadAndCrop,
    TrainPreprocessing,
    crop_windows,
    train_preprocessing,
)
from ccp_dml.data.images import TestPreprocessing, test_image
from ccp_dml.data.options import ImageOptions
from tests.data.conftest import encode, noise, padded_square, smooth_pixels, train_image


def windows(height: int, width: int, count: int, **ranges: tuple[float, float]) -> np.ndarray:
    draws = tf.random.stateless_uniform([count, WINDOW_ATTEMPTS, 4], [1, 2])
    return crop_windows(tf.constant([[height, width]] * count), draws, **ranges).numpy()


@pytest.mark.parametrize("size", [(97, 64), (60, 75), (200, 200)])
def test_windows_keep_to_the_ranges_of_area_and_aspect(size: tuple[int, int]) -> None:
    top, left, height, width = windows(
        *size, count=500, area_range=(0.16, 1.0), aspect_range=(3 / 4, 4 / 3)
    ).T.astype(np.float64)
    assert (top >= 0).all()
    assert (left >= 0).all()
    assert (top + height <= size[0]).all()
    assert (left + width <= size[1]).all()
    # Both sides are rounded to pixels.
    assert ((height + 0.51) * (width + 0.51) >= 0.16 * size[0] * size[1]).all()
    assert ((width + 0.51) / (height - 0.51) >= 3 / 4).all()
    assert ((width - 0.51) / (height + 0.51) <= 4 / 3).all()
    assert (height * width).min() < 0.25 * size[0] * size[1]
    assert len(np.unique(top)) > 10
    assert len(np.unique(left)) > 10


def test_the_largest_centred_window_is_the_last_resort() -> None:
    """An image 8 times as wide as high has no window of 90 % of its area with an aspect below 4 / 3."""
    found = windows(30, 240, count=5, area_range=(0.9, 1.0), aspect_range=(3 / 4, 4 / 3))
    np.testing.assert_array_equal(found, [[0, 100, 30, 40]] * 5)
    found = windows(240, 30, count=5, area_range=(0.9, 1.0), aspect_range=(3 / 4, 4 / 3))
    np.testing.assert_array_equal(found, [[100, 0, 40, 30]] * 5)


def test_the_first_window_that_fits_is_taken() -> None:
    draws = np.full((WINDOW_ATTEMPTS, 4), 0.5, np.float32)
    draws[0] = [1, 1, 0, 0]  # The full area with aspect 2: too wide for a square.
    draws[1] = [0, 0.5, 0.25, 0.75]  # A quarter of the area, aspect 1: 50 x 50.
    found = crop_windows(
        tf.constant([[100, 100]]),
        tf.constant(draws[np.newaxis]),
        area_range=(0.25, 1.0),
        aspect_range=(0.5, 2.0),
    )
    np.testing.assert_array_equal(found, [[int(0.25 * 51), int(0.75 * 51), 50, 50]])


def test_windows_do_not_depend_on_the_other_images_of_the_batch() -> None:
    sizes = np.array([[97, 64], [30, 240], [500, 375], [1, 1]], np.int32)
    draws = tf.random.stateless_uniform([len(sizes), WINDOW_ATTEMPTS, 4], [3, 4])
    ranges = {"area_range": (0.5, 1.0), "aspect_range": (3 / 4, 4 / 3)}
    together = crop_windows(tf.constant(sizes), draws, **ranges)
    single = [
        crop_windows(tf.constant(sizes[i : i + 1]), draws[i : i + 1], **ranges)[0] for i in range(len(sizes))
    ]
    np.testing.assert_array_equal(together, single)


@pytest.mark.parametrize("image_format", ["PNG", "JPEG"])
def test_a_training_image_is_a_resized_window(image_format: str) -> None:
    """Pixels that hold their coordinates show the window, and if it was mirrored."""
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


def test_a_window_of_the_full_area_without_flip_is_the_image() -> None:
    pixels = smooth_pixels(16, 16, seed=3)
    config = TrainPreprocessing(16, area_range=(1.0, 1.0), aspect_range=(1.0, 1.0), flip=False)
    image = train_image(tf.constant(encode(pixels, "PNG")), config, tf.constant([0, 0]))
    np.testing.assert_array_equal(image, pixels)


@pytest.mark.parametrize("size", [(32, 16), (16, 48), (9, 8)])
def test_windows_have_the_aspect_of_the_result(size: tuple[int, int]) -> None:
    config = TrainPreprocessing(size, aspect_range=(0.8, 1.25))
    draws = tf.random.stateless_uniform([300, config.num_draws], [5, 6])
    windows, _ = config.choose(tf.constant([[0, 0, 400, 500]] * 300), draws)
    height, width = windows.numpy()[:, 2:].T
    stretch = (width / height) / (size[1] / size[0])
    assert 0.79 < stretch.min() < 0.85
    assert 1.18 < stretch.max() < 1.27
    encoded = tf.constant(encode(smooth_pixels(400, 500, seed=1), "JPEG"))
    assert config.apply(encoded, windows[0], tf.constant(True)).shape == (*size, 3)


def test_shifts_of_small_images_may_have_different_height_and_width() -> None:
    image, config = noise(20, 30), PadAndCrop((16, 8), (20, 10), flip=False)
    draws = tf.random.stateless_uniform([100, config.num_draws], [5, 6])
    windows, mirrored = config.choose(tf.constant([[0, 0, 20, 30]] * 100), draws)
    assert {tuple(window) for window in windows.numpy()} == {
        (top, left, 16, 8) for top in range(5) for left in range(3)
    }
    top, left = windows.numpy()[0, :2]
    found = config.apply(tf.constant(encode(image, "PNG")), windows[0], mirrored[0])
    np.testing.assert_array_equal(found, image[top : top + 16, 10 + left : 18 + left])


@pytest.mark.parametrize("image_format", ["PNG", "JPEG"])
@pytest.mark.parametrize("antialias", [False, True])
def test_a_window_is_resized_as_a_test_image(image_format: str, antialias: bool) -> None:
    """The full image as window, in training, and the same size in evaluation: equal pixels."""
    encoded = tf.constant(encode(noise(90, 90), image_format))
    training = TrainPreprocessing(20, (1.0, 1.0), (1.0, 1.0), flip=False, antialias=antialias)
    found = train_image(encoded, training, tf.constant([0, 0]))
    expected = test_image(encoded, TestPreprocessing(20, 20, antialias=antialias))
    np.testing.assert_array_equal(found, expected)


def test_an_image_of_one_pixel_is_enlarged() -> None:
    encoded = tf.constant(encode(np.full((1, 1, 3), 9, np.uint8), "PNG"))
    assert (train_image(encoded, TrainPreprocessing(4), tf.constant([0, 0])).numpy() == 9).all()


BOX = (7, 5, 21, 30)


@pytest.mark.parametrize("image_format", ["PNG", "JPEG"])
def test_windows_lie_in_the_box(image_format: str) -> None:
    top, left, height, width = BOX
    encoded = encode(smooth_pixels(33, 50, seed=1), image_format)
    full = tf.io.decode_image(encoded).numpy()
    cropped = tf.constant(encode(full[top : top + height, left : left + width], "PNG"))
    config = TrainPreprocessing(image_size=16)
    for number in range(5):
        seed = tf.constant([3, number])
        expected = train_image(cropped, config, seed)
        # At the edges of a decoded crop, JPEG upsamples colors without their neighbours.
        tolerance = {"PNG": 0, "JPEG": 12}[image_format]
        found = train_image(tf.constant(encoded), config, seed, tf.constant(BOX))
        np.testing.assert_allclose(found, expected, atol=tolerance)


def window_of(square: np.ndarray, cut: np.ndarray) -> tuple[int, int, bool]:
    """Top, left and mirroring of the only window of `square` that equals `cut`."""
    side, found = len(cut), []
    for top in range(len(square) - side + 1):
        for left in range(len(square) - side + 1):
            window = square[top : top + side, left : left + side]
            views = {False: window, True: window[:, ::-1]}
            found += [(top, left, mirror) for mirror in views if np.array_equal(views[mirror], cut)]
    assert len(found) == 1
    return found[0]


@pytest.mark.parametrize("shape", [(32, 32), (28, 35), (61, 50)])
def test_small_images_are_windows_of_the_padded_image(shape: tuple[int, int]) -> None:
    image, config = noise(*shape), PadAndCrop(image_size=32, padded_size=40, padding=127.5)
    encoded, square = tf.constant(encode(image, "PNG")), padded_square(image, 40, 127.5)
    seeds = [tf.constant([5, number]) for number in range(150)]
    found = [window_of(square, train_image(encoded, config, seed).numpy()) for seed in seeds]
    assert {top for top, _, _ in found} == set(range(9))
    assert {left for _, left, _ in found} == set(range(9))
    assert 50 < sum(mirrored for _, _, mirrored in found) < 100


def test_without_room_or_flip_a_small_training_image_is_a_test_image() -> None:
    encoded = tf.constant(encode(noise(20, 30), "PNG"))
    trained = train_image(encoded, PadAndCrop(24, 24, padding=9.0, flip=False), tf.constant([0, 0]))
    tested = test_image(encoded, TestPreprocessing(24, None, padding=9.0))
    np.testing.assert_array_equal(trained, tested)


@pytest.mark.parametrize("image_format", ["PNG", "JPEG"])
@pytest.mark.parametrize("config", [TrainPreprocessing(image_size=16), PadAndCrop(16, 20)])
def test_equal_draws_give_equal_images(image_format: str, config: TrainPreprocessing | PadAndCrop) -> None:
    encoded = tf.constant(encode(smooth_pixels(40, 40, seed=2), image_format))
    images = [train_image(encoded, config, tf.constant([3, number])).numpy() for number in (0, 1, 0)]
    assert images[0].shape == (16, 16, 3)
    assert images[0].dtype == np.float32
    np.testing.assert_array_equal(images[0], images[2])
    assert np.abs(images[0] - images[1]).max() > 1


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"image_size": 0}, "image_size must be at least 1, found 0"),
        ({"area_range": (0.0, 1.0)}, "area_range"),
        ({"area_range": (0.5, 1.5)}, "area_range"),
        ({"aspect_range": (2.0, 1.0)}, "aspect_range"),
    ],
)
def test_ranges_out_of_order_are_refused(options: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        TrainPreprocessing(**{"image_size": 8, **options})


@pytest.mark.parametrize("sizes", [(0, 4), (5, 4)])
def test_a_square_smaller_than_the_image_is_refused(sizes: tuple[int, int]) -> None:
    with pytest.raises(ValueError, match="image_size must be between 1 and padded_size, found"):
        PadAndCrop(*sizes)


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({"image_size": 227, "test_shorter_side": 256}, TrainPreprocessing(227)),
        ({"image_size": (256, 128), "antialias": False}, TrainPreprocessing((256, 128), antialias=False)),
        ({"image_size": 32, "preprocessing": "cifar"}, PadAndCrop(32, 40, 127.5)),
        ({"image_size": (32, 16), "preprocessing": "cifar"}, PadAndCrop((32, 16), (40, 20), 127.5)),
        (
            {"image_size": 64, "preprocessing": "cifar", "horizontal_flip": False},
            PadAndCrop(64, 80, 127.5, flip=False),
        ),
        ({"image_size": 28, "preprocessing": "mnist"}, TestPreprocessing(28, None, gray=True)),
    ],
)
def test_options_give_the_preprocessing_of_training_images(options: dict, expected: object) -> None:
    assert train_preprocessing(ImageOptions(**options)) == expected
