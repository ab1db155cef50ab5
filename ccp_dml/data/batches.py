"""Class-balanced batches for `fit` of any Keras model, and images prepared for its evaluation."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import tensorflow as tf

from ccp_dml.data.augmentation import train_preprocessing
from ccp_dml.data.collection import ImageCollection
from ccp_dml.data.images import test_preprocessing
from ccp_dml.data.options import ImageOptions
from ccp_dml.data.pipeline import (
    FULL_BATCH,
    LAST_STEP,
    InferenceBatches,
    Shard,
    guarded,
    training_batches,
    without_tuning,
)
from ccp_dml.data.sampling import MPerClassSampler, Sampler
from ccp_dml.data.sources import PixelRecords
from ccp_dml.distributed.strategy import distributed_batches

_MOST_NAMED = 5
_READ_AT_ONCE = 64


def balanced_batches(
    source: ImageCollection,
    classes_per_batch: int = 8,
    samples_per_class: int = 4,
    *,
    images: ImageOptions | None = None,
    sampler: Sampler | None = None,
    seed: int = 0,
    first_step: int = 0,
    image_ids: bool = False,
    strategy: tf.distribute.Strategy | None = None,
) -> Any:
    """Returns the endless stream of batches with several images of each of several classes.

    Batch s is a function of the seed and s alone, so a stream from `first_step` on continues another one.

    Args:
        source: the images, as of `from_arrays` or `from_files`.
        classes_per_batch: distinct classes in a batch.
        samples_per_class: images of each class; a class with fewer images repeats some of them.
        images: size and augmentation of the images; None to give arrays as they are.
        sampler: chooses the images instead, such as `ClassUniformSampler(source.labels, 32)`.
        seed: seed of the order and of the augmentation.
        first_step: the first batch, from 0.
        image_ids: labels are int32 [B, 2] = (class, image id), which memories of embeddings use.
        strategy: divides every batch among the replicas of a strategy, for a `Trainer`.

    Returns:
        A `tf.data.Dataset` of (images [B, ...], int32 [B]). With `images`, they are float32 RGB in 0..255,
        the same pixels as in the training command. Under a strategy, a distributed dataset.

    Raises:
        ValueError: if a class has a single image, there are too few classes, or files come without `images`.

    Example:
        >>> source = ccp_dml.data.from_arrays(np.eye(6), ["a", "a", "b", "b", "c", "c"])
        >>> images, labels = next(iter(balanced_batches(source, classes_per_batch=2, samples_per_class=2)))
        >>> images.shape, labels.shape
        (TensorShape([4, 6]), TensorShape([4]))
    """
    if sampler is None:
        _check_sizes(source, samples_per_class)
        sampler = MPerClassSampler(source.labels, classes_per_batch, samples_per_class, seed)
    _check_pixels(source, images)

    def of_shard(first: int, shard: Shard) -> tf.data.Dataset:
        if images is None:
            batches = _pixel_batches(source, sampler, first, shard)
        else:
            augmentation = train_preprocessing(images.completed())
            batches = training_batches(
                source, sampler, augmentation, seed=seed, first_step=first, shard=shard
            )
        return batches if image_ids else batches.map(lambda values, labels: (values, labels[:, 0]))

    if strategy is None:
        return of_shard(first_step, FULL_BATCH)
    return distributed_batches(strategy, lambda first, *of: of_shard(first, Shard(*of)))(first_step)


class EvaluationImages:
    """The images of a source as a model is evaluated on them: resized and cropped, without augmentation.

    `RetrievalMetrics` and `CCPCallback` take them as samples.

    Example:
        >>> source = ccp_dml.data.from_folder(photos)
        >>> samples = EvaluationImages(source, ImageOptions(image_size=32))
        >>> samples.shape, samples[[0, 2]].shape
        ((8, 32, 32, 3), (2, 32, 32, 3))

    Attributes:
        shape: (N, ...), the shape of all images together.
    """

    def __init__(self, source: ImageCollection, images: ImageOptions | None = None) -> None:
        """Takes the source; images are read when they are asked for.

        Args:
            source: the images.
            images: size of the images; None to give arrays as they are.

        Raises:
            ValueError: if files come without `images`.
        """
        _check_pixels(source, images)
        self._source = source
        self._batches = None
        if images is not None:
            preprocessing = test_preprocessing(images.completed())
            self._batches = InferenceBatches(source, preprocessing, _READ_AT_ONCE)
        self.shape = (len(source), *self[np.zeros(1, np.int64)].shape[1:])

    def __len__(self) -> int:
        return len(self._source)

    def __getitem__(self, rows: npt.ArrayLike) -> npt.NDArray[Any]:
        """Returns the images at `rows`, an integer or [n]."""
        chosen = np.atleast_1d(np.asarray(rows, np.int64))
        if self._batches is None:
            found = _pixels(self._source, chosen)
        else:
            found = np.concatenate(list(self._batches.of(chosen).as_numpy_iterator()))
        return found if np.ndim(rows) else found[0]


def _pixel_batches(
    source: ImageCollection, sampler: Sampler, first_step: int, shard: Shard
) -> tf.data.Dataset:
    """Returns batches of arrays as they are, with labels int32 [B, 2]."""
    rows, like = shard.rows(sampler.batch_size), _pixels(source, np.zeros(1, np.int64))

    @guarded
    def read(step: np.int64) -> tuple[Any, Any]:
        indices = sampler.batch(int(step))[rows]
        labels = np.stack([source.labels[indices], source.image_ids[indices]], 1).astype(np.int32)
        return _pixels(source, indices), labels

    def read_batch(step: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        values, labels = tf.numpy_function(read, [step], (like.dtype, tf.int32))
        return tf.ensure_shape(values, [len(rows), *like.shape[1:]]), tf.ensure_shape(labels, [len(rows), 2])

    batches = tf.data.Dataset.range(first_step, LAST_STEP).map(read_batch)
    if shard.num_replicas > 1:
        batches = batches.unbatch().batch(len(rows) // shard.num_replicas, drop_remainder=True)
    return without_tuning(batches.prefetch(2))


def _pixels(source: ImageCollection, indices: npt.NDArray[np.int64]) -> npt.NDArray[Any]:
    assert isinstance(source.source, PixelRecords)
    return source.source.pixels(source.rows[indices].tolist())


def _check_pixels(source: ImageCollection, images: ImageOptions | None) -> None:
    if images is None and not isinstance(source.source, PixelRecords):
        raise ValueError(
            "images is None; expected ImageOptions(image_size=...), as the images of files differ in size"
        )


def _check_sizes(source: ImageCollection, samples_per_class: int) -> None:
    single = [name for name, size in source.class_sizes().items() if size < min(samples_per_class, 2)]
    if single:
        named = ", ".join(map(repr, single[:_MOST_NAMED]))
        raise ValueError(
            f"{len(single)} of {source.num_classes} classes have fewer than 2 images, such as {named}; "
            "expected at least 2 of each class, a positive pair (`source.by_classes` leaves classes out)"
        )
