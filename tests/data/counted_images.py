"""Collections of small random images that record which of them are read."""

from __future__ import annotations

import numpy as np
import tensorflow as tf

from ccp_dml.data.collection import ImageCollection, InMemoryRecords

SIDE = 8


class CountedRecords(InMemoryRecords):
    """Encoded images that record how often each is read.

    Attributes:
        rows: rows of all images read so far, in order, with repetitions.
    """

    def __init__(self, images: list[bytes]) -> None:
        super().__init__(images)
        self.rows: list[int] = []

    @property
    def read(self) -> int:
        return len(self.rows)

    def encoded(self, rows):
        self.rows += np.asarray(rows).tolist()
        return super().encoded(rows)


def collection(number: int, seed: int, num_classes: int = 2) -> ImageCollection:
    """Images of 8 x 8 pixels with classes in turn."""
    pixels = np.random.default_rng(seed).integers(0, 256, (number, SIDE, SIDE, 3), np.uint8)
    images = [tf.io.encode_png(image).numpy() for image in pixels]
    numbers, names = np.arange(number), tuple("abcdefghijklmnop"[:num_classes])
    return ImageCollection(
        numbers % num_classes, names, numbers + 100 * seed, CountedRecords(images), numbers
    )
