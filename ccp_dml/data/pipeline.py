"""Input pipelines: `tf.data` datasets whose elements are functions of the seed and the step.

One sequential Python call per batch chooses and reads the records and draws random numbers, because every
operation costs a microsecond or more, independent of its size. Decoding and resizing run in parallel, image
by image and in a fixed order, so the stream does not depend on the number of threads.
"""

from __future__ import annotations

import contextlib
import functools
import os
import re
import threading
import time
import weakref
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import tensorflow as tf

from ccp_dml.data.augmentation import Augmentation
from ccp_dml.data.collection import ImageCollection
from ccp_dml.data.images import TestPreprocessing, image_size, test_image
from ccp_dml.data.random_streams import AUGMENTATION, IntArray, uniform_draws
from ccp_dml.data.resizing import either
from ccp_dml.data.sampling import Sampler
from ccp_dml.errors import UserError

LAST_STEP = np.iinfo(np.int64).max
_READ_AHEAD = 2
_QUIET_SECONDS = 0.02
_MOST_SECONDS = 2.0


@dataclass(frozen=True)
class Shard:
    """The rows of every batch that one worker reads.

    Attributes:
        worker: index of the worker, from 0.
        num_workers: number of workers, which divide every batch equally.
        num_replicas: number of replicas of the worker; each gets an element of the stream for every batch.
    """

    worker: int = 0
    num_workers: int = 1
    num_replicas: int = 1

    def rows(self, batch_size: int) -> IntArray:
        """Returns the ascending rows of the worker, int64 [batch_size / num_workers].

        Raises:
            ValueError: if the replicas of all workers cannot divide the batch equally.
        """
        replicas = self.num_workers * self.num_replicas
        if batch_size % replicas:
            raise ValueError(f"A batch of {batch_size} images cannot be divided into {replicas} equal parts.")
        size = batch_size // self.num_workers
        return np.arange(self.worker * size, (self.worker + 1) * size)


FULL_BATCH = Shard()


def training_batches(
    images: ImageCollection,
    sampler: Sampler,
    preprocessing: Augmentation | TestPreprocessing,
    *,
    seed: int,
    first_step: int = 0,
    unaugmented: tuple[int, TestPreprocessing] | None = None,
    shard: Shard = FULL_BATCH,
) -> tf.data.Dataset:
    """Returns the endless stream of training batches from `first_step` on.

    Args:
        images: the collection to which the sampler's indices refer.
        sampler: chooses the images of a step.
        preprocessing: the augmentation, or the preprocessing of test images to train without one.
        seed: seed of the augmentation, which is a function of the seed, the step and the place in the batch.
        first_step: step of the first element, at least 0.
        unaugmented: (n, preprocessing) to prepare the first n images of every batch, such as the
            representatives of their classes, without augmentation.
        shard: rows of every batch to read.

    Returns:
        Dataset of (float32 RGB [B, H, W, 3] in 0..255, int32 [B, 2] with class and image id), where B is the
        batch size divided by the number of all replicas.

    Raises:
        ValueError: if the batches cannot be divided equally.
    """
    rows = shard.rows(sampler.batch_size)
    num_plain, plain = unaugmented or (0, None)
    augmentation = preprocessing if isinstance(preprocessing, Augmentation) else None
    numbers = np.arange(0 if augmentation is None else augmentation.num_draws)

    @guarded
    def read(step: np.int64) -> tuple[Any, ...]:
        indices = sampler.batch(int(step))[rows]
        labels = np.stack([images.labels[indices], images.image_ids[indices]], 1).astype(np.int32)
        encoded, boxes = _read(images, indices)
        if augmentation is not None and images.boxes is None:
            boxes[:, 2:] = [image_size(image) for image in encoded]
        draws = uniform_draws(seed, AUGMENTATION, int(step), rows[:, np.newaxis], numbers)
        return encoded, boxes, labels, draws

    def read_batch(step: tf.Tensor) -> dict[str, tf.Tensor]:
        types = (tf.string, tf.int32, tf.int32, tf.float32)
        encoded, boxes, labels, draws = tf.numpy_function(read, [step], types)
        batch = {
            "encoded": tf.ensure_shape(encoded, [len(rows)]),
            "box": tf.ensure_shape(boxes, [len(rows), 4]),
            "labels": tf.ensure_shape(labels, [len(rows), 2]),
            "is_plain": tf.constant(rows < num_plain),
        }
        if augmentation is not None:
            draws = tf.ensure_shape(draws, [len(rows), len(numbers)])
            batch["window"], batch["mirrored"] = augmentation.choose(batch["box"], draws)
        return batch

    def prepare(image: dict[str, tf.Tensor]) -> tuple[tf.Tensor, tf.Tensor]:
        box = None if images.boxes is None else image["box"]

        def usual(encoded: tf.Tensor) -> tf.Tensor:
            if isinstance(preprocessing, TestPreprocessing):
                return test_image(encoded, preprocessing, box)
            return preprocessing.apply(encoded, image["window"], image["mirrored"], box)

        if plain is None:
            return usual(image["encoded"]), image["labels"]
        first = functools.partial(test_image, config=plain, box=box)
        return either(image["is_plain"], first, usual, image["encoded"]), image["labels"]

    batches = tf.data.Dataset.range(first_step, LAST_STEP).map(read_batch)
    return _per_image(batches, prepare, len(rows) // shard.num_replicas, drop_remainder=True)


class InferenceBatches:
    """Batches of the images of a collection, prepared for evaluation.

    One object, and with it one pipeline, serves any number of choices of images: TensorFlow never frees all
    the memory of a pipeline.
    """

    def __init__(self, images: ImageCollection, preprocessing: TestPreprocessing, batch_size: int) -> None:
        """Builds the pipeline.

        Args:
            images: the collection.
            preprocessing: resize and crop.
            batch_size: images per batch; the last batch may be shorter.

        Raises:
            ValueError: if `batch_size` is less than 1.
        """
        if batch_size < 1:
            raise ValueError(f"batch_size must be at least 1, found {batch_size}")
        self._all = np.arange(len(images))
        # A list: the pipeline must not refer to this object, which refers to it.
        self._chosen = chosen = [self._all]

        @guarded
        def read(batch: np.int64) -> tuple[Any, Any]:
            return _read(images, chosen[0][int(batch) * batch_size : (int(batch) + 1) * batch_size])

        def read_batch(batch: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
            encoded, boxes = tf.numpy_function(read, [batch], (tf.string, tf.int32))
            return tf.ensure_shape(encoded, [None]), tf.ensure_shape(boxes, [None, 4])

        def prepare(encoded: tf.Tensor, box: tf.Tensor) -> tf.Tensor:
            return test_image(encoded, preprocessing, None if images.boxes is None else box)

        batches = tf.data.Dataset.range(LAST_STEP).map(read_batch)
        batches = batches.take_while(lambda encoded, boxes: tf.size(encoded) > 0)
        self._batches = _per_image(batches, prepare, batch_size, drop_remainder=False)

    def of(self, indices: Sequence[int] | np.ndarray[Any, Any] | slice | None = None) -> tf.data.Dataset:
        """Returns images in order, until the next call.

        Args:
            indices: indices of the images, in the order of the result, or a slice of the collection; None
                for all images.

        Returns:
            Finite dataset of float32 RGB [b, H, W, 3] in 0..255.
        """
        chosen = slice(None) if indices is None else indices
        self._chosen[0] = self._all[chosen if isinstance(chosen, slice) else np.asarray(chosen, np.int64)]
        return self._batches


def _read(images: ImageCollection, indices: np.ndarray[Any, Any]) -> tuple[Any, Any]:
    """Reads encoded images, object [b], and their boxes, int32 [b, 4]; without boxes, zeros."""
    encoded = np.array(images.encoded(indices), object)
    if images.boxes is None:
        return encoded, np.zeros((len(indices), 4), np.int32)
    return encoded, images.boxes[indices].astype(np.int32)


def _per_image(
    batches: tf.data.Dataset, function: Callable[..., Any], batch_size: int, *, drop_remainder: bool
) -> tf.data.Dataset:
    """Applies a function to every image of the batches, in parallel, and batches the results."""
    return without_tuning(
        batches.prefetch(_READ_AHEAD)
        .unbatch()
        .map(function, num_parallel_calls=os.cpu_count(), deterministic=True)
        .batch(batch_size, drop_remainder=drop_remainder)
        .prefetch(_READ_AHEAD)
    )


def without_tuning(dataset: tf.data.Dataset) -> tf.data.Dataset:
    """Returns the dataset with autotuning switched off.

    The tuning thread wakes up at intervals that double from 10 ms to a minute, and deleting an iterator waits
    for it: after every pass over some images, and at the end of a run.
    """
    options = tf.data.Options()
    options.autotune.enabled = False
    return dataset.with_options(options)


@contextlib.contextmanager
def reading_errors() -> Iterator[None]:
    """Restores the type of a `UserError` raised while reading, of which TensorFlow keeps only the text."""
    try:
        yield
    except tf.errors.OpError as error:
        found = re.search(rf"\b{UserError.__name__}: (.*)", error.message)
        if found is None:
            raise
        raise UserError(found[1]) from error


def guarded(function: Callable[..., Any]) -> Callable[..., Any]:
    """Returns a function that an input pipeline may call until the interpreter exits; calls are serialized.

    A pipeline that reads ahead calls Python from its own thread. If that happens while the interpreter is
    being torn down, the call never returns, the destructor of the pipeline waits for it, and the process
    hangs. Pipelines can exist at exit, for example in the traceback of the error that ends a program. A
    guarded function therefore ends the reading before the interpreter exits.
    """
    gate = _Gate()

    @functools.wraps(function)
    def call(*arguments: Any) -> Any:
        return gate.call(function, arguments)

    weakref.finalize(call, gate.close, weakref.ref(call))
    return call


class _Gate:
    """Lets calls through, one at a time, until it is closed."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._closed = False
        self._arrivals = 0

    def call(self, function: Callable[..., Any], arguments: tuple[Any, ...]) -> Any:
        self._arrivals += 1
        with self._lock:
            if self._closed:
                raise StopIteration
            return function(*arguments)

    def close(self, callers: weakref.ref[Any]) -> None:
        """Waits for the call in progress and until no more calls arrive, unless all callers are gone."""
        if callers() is None:
            return
        with self._lock:
            self._closed = True
        give_up = time.monotonic() + _MOST_SECONDS
        arrivals = -1
        while arrivals != self._arrivals and time.monotonic() < give_up:
            arrivals = self._arrivals
            time.sleep(_QUIET_SECONDS)
