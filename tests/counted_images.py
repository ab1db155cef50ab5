"""Collections of small random images that note which of them are read."""

from __future__ import annotations

import numpy as np
import tensorflow as tf

from ccp_dml.data.collection import ImageCollection, InMemoryRecords

SIDE = 8


class CountedRecords(InMemoryRecords):
    """Notes which images are read.

    Attributes:
        rows: of every image, as often as it was read.
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
    """Images of 8 x 8 pixels whose classes take turns."""
    pixels = np.random.default_rng(seed).integers(0, 256, (number, SIDE, SIDE, 3), np.uint8)
    images = [tf.io.encode_png(image).numpy() for image in pixels]
    numbers, names = np.arange(number), tuple("abcdefghijklmnop"[:num_classes])
    return ImageCollection(
        numbers % num_classes, names, numbers + 100 * seed, CountedRecords(images), numbers
    )
