"""The images of the study of figure 1: Fashion-MNIST, its sorted classes and its batches."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import tensorflow as tf

from ccp_dml.data.sampling import MPerClassSampler
from ccp_dml.datasets.fashion_mnist import source
from studies.figure1.measures import Ints

CLASSES = len(source.CLASS_NAMES)


@dataclass(frozen=True)
class Split:
    """Images uint8 [N, 28, 28] and their labels int64 [N]."""

    images: source.Bytes
    labels: Ints

    def first_per_class(self, count: int) -> Split:
        """Returns the first `count` images of every class."""
        rows = np.concatenate([np.flatnonzero(self.labels == label)[:count] for label in range(CLASSES)])
        return Split(self.images[rows], self.labels[rows])


def load(data_dir: str | None) -> dict[str, Split]:
    """Reads the splits `train` and `test` of Fashion-MNIST.

    Raises:
        ValueError: if files are missing or damaged.
    """
    folder = source.find(data_dir)
    pictures = {split: source.read_split(folder, split) for split in ("train", "test")}
    return {name: Split(images, labels.astype(np.int64)) for name, (images, labels) in pictures.items()}


def preprocess(images: tf.Tensor) -> tf.Tensor:
    """The original's MNIST preprocessing: pixels in 0..1 less 0.5, one channel, no augmentation.

    Args:
        images: uint8 [B, H, W].

    Returns:
        float32 [B, H, W, 1].
    """
    return (tf.cast(images, tf.float32) / 255.0 - 0.5)[..., tf.newaxis]


def batches(split: Split, samples_per_class: int, seed: int, first_step: int) -> tf.data.Dataset:
    """Endless batches of every class: preprocessed images and labels int32 [B]."""
    sampler = MPerClassSampler(split.labels, CLASSES, samples_per_class, seed)
    size = sampler.batch_size

    def read(step: np.int64) -> tuple[source.Bytes, Any]:
        rows = sampler.batch(int(step))
        return split.images[rows], split.labels[rows].astype(np.int32)

    def batch(step: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        images, labels = tf.numpy_function(read, [step], (tf.uint8, tf.int32), stateful=False)
        images = tf.ensure_shape(images, [size, source.SIDE, source.SIDE])
        return preprocess(images), tf.ensure_shape(labels, [size])

    return tf.data.Dataset.counter(first_step).map(batch).prefetch(2)
