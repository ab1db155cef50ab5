"""The preprocessing of small images: shifted and mirrored, or in gray, and never resized."""

from __future__ import annotations

import numpy as np
import pytest
import tensorflow as tf

from ccp_dml.data.images import PadAndCrop, TestPreprocessing, test_image
from tests.data.conftest import encode, train_image


def noise(height: int, width: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3)).astype(np.uint8)


def in_the_middle(image: np.ndarray, size: int, padding: float) -> np.ndarray:
    """Pixel by pixel: the image's centre in the centre of a square."""
    result = np.full((size, size, 3), padding)
    top, left = ((size - side) // 2 if side <= size else -((side - size) // 2) for side in image.shape[:2])
    for y in range(image.shape[0]):
        for x in range(image.shape[1]):
            if 0 <= y + top < size and 0 <= x + left < size:
                result[y + top, x + left] = image[y, x]
    return result


def window_of(square: np.ndarray, cut: np.ndarray) -> tuple[int, int, bool]:
    """Top, left and whether mirrored: the one way in which `cut` comes out of `square`."""
    side, found = len(cut), []
    for top in range(len(square) - side + 1):
        for left in range(len(square) - side + 1):
            window = square[top : top + side, left : left + side]
            found += [(top, left, mirror) for mirror in (False, True) if _same(window, cut, mirror)]
    assert len(found) == 1
    return found[0]


def _same(window: np.ndarray, cut: np.ndarray, mirror: bool) -> bool:
    return np.array_equal(window[:, ::-1] if mirror else window, cut)


@pytest.mark.parametrize("shape", [(32, 32), (28, 35), (61, 50)])
def test_training_images_are_windows_of_the_padded_image(shape: tuple[int, int]) -> None:
    image, config = noise(*shape), PadAndCrop(image_size=32, padded_size=40, padding=127.5)
    encoded, square = tf.constant(encode(image, "PNG")), in_the_middle(image, 40, 127.5)
    seeds = [tf.constant([5, number]) for number in range(150)]
    found = [window_of(square, train_image(encoded, config, seed).numpy()) for seed in seeds]
    assert {top for top, _, _ in found} == set(range(9))
    assert {left for _, left, _ in found} == set(range(9))
    assert 50 < sum(mirrored for _, _, mirrored in found) < 100


def test_training_images_depend_on_the_seed_alone() -> None:
    encoded, config = tf.constant(encode(noise(32, 32), "JPEG")), PadAndCrop(32, 40)
    images = [train_image(encoded, config, tf.constant([3, number])).numpy() for number in (0, 1, 0)]
    assert images[0].shape == (32, 32, 3)
    assert images[0].dtype == np.float32
    np.testing.assert_array_equal(images[0], images[2])
    assert np.abs(images[0] - images[1]).max() > 1


def test_without_room_or_flip_a_training_image_is_a_test_image() -> None:
    encoded = tf.constant(encode(noise(20, 30), "PNG"))
    trained = train_image(encoded, PadAndCrop(24, 24, padding=9.0, flip=False), tf.constant([0, 0]))
    tested = test_image(encoded, TestPreprocessing(24, None, padding=9.0))
    np.testing.assert_array_equal(trained, tested)


@pytest.mark.parametrize("shape", [(28, 28), (20, 31), (45, 16)])
@pytest.mark.parametrize("gray", [False, True])
def test_test_images_are_not_resized(shape: tuple[int, int], gray: bool) -> None:
    image = noise(*shape)
    expected = in_the_middle(image, 28, 127.5)
    if gray:
        expected = np.stack([expected.mean(axis=-1)] * 3, axis=-1)
    config = TestPreprocessing(28, None, padding=127.5, gray=gray)
    for form in (encode(image, "PNG"), image, image.astype(np.float32)):
        found = test_image(tf.constant(form), config).numpy()
        assert found.dtype == np.float32
        np.testing.assert_allclose(found, expected, rtol=0, atol=1e-4)


@pytest.mark.parametrize("sizes", [(0, 4), (5, 4)])
def test_bad_sizes(sizes: tuple[int, int]) -> None:
    with pytest.raises(ValueError, match="image_size must be between 1 and padded_size, found"):
        PadAndCrop(*sizes)
