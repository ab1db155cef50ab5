"""Collections of small synthetic images."""

from __future__ import annotations

import io

import numpy as np
import pytest
import tensorflow as tf
from PIL import Image

from ccp_dml.data.augmentation import Augmentation
from ccp_dml.data.collection import ImageCollection, InMemoryRecords
from ccp_dml.data.images import image_size


def encode(pixels: np.ndarray, image_format: str) -> bytes:
    stream = io.BytesIO()
    Image.fromarray(pixels).save(stream, image_format)
    return stream.getvalue()


def smooth_pixels(height: int, width: int, seed: int) -> np.ndarray:
    """A smooth image, which JPEG hardly changes."""
    coarse = np.random.default_rng(seed).integers(0, 256, (4, 4, 3), np.uint8)
    return np.asarray(Image.fromarray(coarse).resize((width, height), Image.Resampling.BICUBIC))


def noise(height: int, width: int) -> np.ndarray:
    """An image of independent random pixels."""
    return np.random.default_rng(0).integers(0, 256, (height, width, 3)).astype(np.uint8)


def padded_square(image: np.ndarray, size: int, padding: float) -> np.ndarray:
    """The center of an image in the center of a square, placed pixel by pixel."""
    result = np.full((size, size, 3), padding)
    top, left = ((size - side) // 2 if side <= size else -((side - size) // 2) for side in image.shape[:2])
    for y in range(image.shape[0]):
        for x in range(image.shape[1]):
            if 0 <= y + top < size and 0 <= x + left < size:
                result[y + top, x + left] = image[y, x]
    return result


def train_image(
    encoded: tf.Tensor, config: Augmentation, seed: tf.Tensor, box: tf.Tensor | None = None
) -> tf.Tensor:
    """Augments one image as a batch of one, with random numbers that depend on the seed."""
    chosen_from = tf.constant([0, 0, *image_size(encoded.numpy())]) if box is None else box
    draws = tf.random.stateless_uniform([1, config.num_draws], seed)
    windows, mirrored = config.choose(chosen_from[tf.newaxis], draws)
    return config.apply(encoded, windows[0], mirrored[0], box)


@pytest.fixture(scope="session")
def collection() -> ImageCollection:
    """Seven classes of 1 to 7 images of several sizes, PNG and JPEG, with rows in reverse order."""
    labels = np.repeat(np.arange(7), np.arange(1, 8))
    sizes = [(20 + 3 * index, 40 - index) for index in range(len(labels))]
    images = [
        encode(smooth_pixels(*size, seed=index), "JPEG" if index % 3 == 0 else "PNG")
        for index, size in enumerate(sizes)
    ]
    return ImageCollection(
        labels=labels,
        class_names=tuple("abcdefg"),
        image_ids=1000 + np.arange(len(labels)),
        source=InMemoryRecords(images[::-1]),
        rows=np.arange(len(labels))[::-1],
    )
