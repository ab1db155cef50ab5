"""Input pipelines: `tf.data` datasets whose elements are functions of (seed, step).

Every element begins with one sequential call that chooses and reads the records of a whole batch, and draws
what is random about them, for the whole batch at once: an operation costs a microsecond or more, whatever its
size. Decoding and resizing run in parallel, image by image, in a fixed order, so that the stream does not
depend on the number of threads.
"""

from __future__ import annotations

import contextlib
import functools
import os
import re
import threading
import time
import weakref
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import tensorflow as tf

from ccp_dml.data.collection import ImageCollection
from ccp_dml.data.images import (
    Augmentation,
    TestPreprocessing,
    choose,
    either,
    num_draws,
    test_image,
    train_image,
)
from ccp_dml.data.random_streams import AUGMENTATION, IntArray, uniform_draws
from ccp_dml.data.sampling import Sampler
from ccp_dml.errors import UserError


@dataclass(frozen=True)
class Shard:
    """One of several equal parts of every batch, cut by position, and the pieces that it is given out in.

    Attributes:
        index: number of the part, from 0.
        count: number of parts.
        pieces: number of equal pieces of the part; each is an element of the stream.
    """

    index: int = 0
    count: int = 1
    pieces: int = 1

    def rows(self, batch_size: int) -> IntArray:
        """Positions of the part in a batch, int64 [batch_size / count], ascending.

        Raises:
            ValueError: if the batch cannot be divided into the pieces of all parts.
        """
        pieces = self.count * self.pieces
        if batch_size % pieces:
            raise ValueError(f"A batch of {batch_size} images cannot be divided into {pieces} equal parts.")
        size = batch_size // self.count
        return np.arange(self.index * size, (self.index + 1) * size)


WHOLE = Shard()


def training_batches(
    images: ImageCollection,
    sampler: Sampler,
    preprocessing: Augmentation | TestPreprocessing,
    *,
    seed: int,
    first_step: int = 0,
    unaugmented: tuple[int, TestPreprocessing] | None = None,
    shard: Shard = WHOLE,
) -> tf.data.Dataset:
    """Endless training batches, beginning with that of `first_step`.

    Args:
        images: what the sampler's indices refer to.
        sampler: chooses the images of a step.
        preprocessing: augmentation; or that of test images, for training without any.
        seed: of the augmentation: step, place in the batch and it decide how an image is augmented.
        first_step: the step of the first element, at least 0.
        unaugmented: (n, preprocessing): the first n images of every batch, such as the representatives of
            their classes, are prepared so; None: all images are prepared alike.
        shard: which rows of every batch; only these are read.

    Returns:
        Dataset of (float32 RGB [B, S, S, 3] in 0..255, int32 [B, 2] = class and image id), in which each
        batch is divided as `shard` says.

    Raises:
        ValueError: if batches cannot be divided so.
    """
    rows = shard.rows(sampler.batch_size)
    num_plain, plain = unaugmented or (0, None)
    augmentation = None if isinstance(preprocessing, TestPreprocessing) else preprocessing

    def prepare(
        encoded: tf.Tensor,
        box: tf.Tensor,
        window: tf.Tensor,
        mirrored: tf.Tensor,
        labels: tf.Tensor,
        is_plain: tf.Tensor,
    ) -> tuple[tf.Tensor, tf.Tensor]:
        part = None if images.boxes is None else box

        def augmented(encoded: tf.Tensor) -> tf.Tensor:
            if isinstance(preprocessing, TestPreprocessing):
                return test_image(encoded, preprocessing, part)
            return train_image(encoded, preprocessing, window, mirrored, part)

        if plain is None:
            return augmented(encoded), labels
        return either(is_plain, lambda image: test_image(image, plain, part), augmented, encoded), labels

    batches = _read_batches(images, sampler, rows, augmentation, seed, first_step)
    marked = batches.map(lambda *parts: (*parts, tf.constant(rows < num_plain)))
    return _per_image(marked, prepare, len(rows) // shard.pieces, drop_remainder=True)


def _read_batches(
    images: ImageCollection,
    sampler: Sampler,
    rows: np.ndarray[Any, Any],
    augmentation: Augmentation | None,
    seed: int,
    first_step: int,
) -> tf.data.Dataset:
    """Rows of every batch: encoded images, boxes, windows, whether mirrored, (classes, image ids)."""
    batch_size = len(rows)

    def read(step: np.int64) -> tuple[Any, ...]:
        indices = sampler.batch(int(step))[rows]
        labels = np.stack([images.labels[indices], images.image_ids[indices]], 1).astype(np.int32)
        encoded = images.encoded(indices)
        boxes, draws = _boxes(images, indices), np.zeros((batch_size, 0), np.float32)
        if augmentation is not None:
            numbers = np.arange(num_draws(augmentation))
            draws = uniform_draws(seed, AUGMENTATION, int(step), rows[:, np.newaxis], numbers)
            if images.boxes is None:
                boxes[:, 2:] = [image_size(image) for image in encoded]
        return np.array(encoded, object), boxes, labels, draws

    read_now = guarded(read)

    def read_batch(step: tf.Tensor) -> tuple[tf.Tensor, ...]:
        types = (tf.string, tf.int32, tf.int32, tf.float32)
        encoded, boxes, labels, draws = tf.numpy_function(read_now, [step], types)
        boxes = windows = tf.ensure_shape(boxes, [batch_size, 4])
        mirrored = tf.zeros([batch_size], tf.bool)
        if augmentation is not None:
            draws = tf.ensure_shape(draws, [batch_size, num_draws(augmentation)])
            windows, mirrored = choose(augmentation, boxes, draws)
        encoded, labels = tf.ensure_shape(encoded, [batch_size]), tf.ensure_shape(labels, [batch_size, 2])
        return encoded, boxes, windows, mirrored, labels

    return tf.data.Dataset.range(first_step, np.iinfo(np.int64).max).map(read_batch)


def inference_batches(
    images: ImageCollection,
    preprocessing: TestPreprocessing,
    batch_size: int,
    indices: Sequence[int] | np.ndarray[Any, Any] | None = None,
) -> tf.data.Dataset:
    """Images in order, prepared for evaluation.

    Args:
        images: the collection.
        preprocessing: resize and crop.
        batch_size: images per batch; the last batch may be shorter.
        indices: which images, in which order; None: all.

    Returns:
        Finite dataset of float32 RGB [b, S, S, 3] in 0..255.

    Raises:
        ValueError: if `batch_size` is less than 1.
    """
    if batch_size < 1:
        raise ValueError(f"batch_size must be at least 1, found {batch_size}")
    chosen = np.arange(len(images)) if indices is None else np.asarray(indices, np.int64)

    def read(batch: np.int64) -> tuple[Any, Any]:
        part = chosen[int(batch) * batch_size : (int(batch) + 1) * batch_size]
        return np.array(images.encoded(part), object), _boxes(images, part)

    read_now = guarded(read)

    def read_batch(batch: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        encoded, boxes = tf.numpy_function(read_now, [batch], (tf.string, tf.int32))
        return tf.ensure_shape(encoded, [None]), tf.ensure_shape(boxes, [None, 4])

    def prepare(encoded: tf.Tensor, box: tf.Tensor) -> tf.Tensor:
        return test_image(encoded, preprocessing, None if images.boxes is None else box)

    batches = tf.data.Dataset.range(-(-len(chosen) // batch_size))
    return _per_image(batches.map(read_batch), prepare, batch_size, drop_remainder=False)


@contextlib.contextmanager
def reading_errors() -> Iterator[None]:
    """Gives back its type to a `UserError` of reading, of which TensorFlow keeps the text alone."""
    try:
        yield
    except tf.errors.OpError as error:
        found = re.search(rf"\b{UserError.__name__}: (.*)", error.message)
        if found is None:
            raise
        raise UserError(found[1]) from error


def _boxes(images: ImageCollection, indices: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    """Boxes of some images, int32 [b, 4]; zeros, which nobody reads, where the images have none."""
    if images.boxes is None:
        return np.zeros((len(indices), 4), np.int32)
    return images.boxes[indices].astype(np.int32)


def _per_image(
    batches: tf.data.Dataset, function: Callable[..., Any], batch_size: int, *, drop_remainder: bool
) -> tf.data.Dataset:
    """Applies a function to every image of batches, in parallel, and makes batches of the results."""
    return without_tuning(
        batches.prefetch(2)
        .unbatch()
        .map(function, num_parallel_calls=os.cpu_count(), deterministic=True)
        .batch(batch_size, drop_remainder=drop_remainder)
        .prefetch(2)
    )


def without_tuning(dataset: tf.data.Dataset) -> tf.data.Dataset:
    """The dataset, of which nothing is tuned while it is read.

    The thread that tunes looks at intervals which double, from 10 ms to a minute, and an iterator that is no
    longer needed waits for it: after each pass over some images, and at the end of a run.
    """
    options = tf.data.Options()
    options.autotune.enabled = False
    return dataset.with_options(options)


_QUIET_SECONDS = 0.02
_MOST_SECONDS = 2.0


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
        """Waits for the call under way, and then until no further ones arrive, if anybody is left to call."""
        if callers() is None:
            return
        with self._lock:
            self._closed = True
        give_up = time.monotonic() + _MOST_SECONDS
        arrivals = -1
        while arrivals != self._arrivals and time.monotonic() < give_up:
            arrivals = self._arrivals
            time.sleep(_QUIET_SECONDS)


def guarded(function: Callable[..., Any]) -> Callable[..., Any]:
    """Returns the function, made to be called by an input pipeline; its calls are serialised.

    A pipeline that reads ahead calls Python from a thread of its own. If it does so while the interpreter is
    being torn down, the call never returns, and the pipeline's destructor waits for it for ever: the process
    hangs. That happens when a pipeline is alive at exit, say in the traceback of the error that ends a
    program. A guarded function ends the pipeline's reading before the interpreter goes.
    """
    gate = _Gate()

    @functools.wraps(function)
    def call(*arguments: Any) -> Any:
        return gate.call(function, arguments)

    weakref.finalize(call, gate.close, weakref.ref(call))
    return call


class KeptBatches:
    """Keeps the batches of the first whole pass and gives them again in later ones.

    A pass that is broken off keeps nothing.
    """

    def __init__(self, batches: Iterable[Any]) -> None:
        """Takes the batches, which are iterated until one pass was whole.

        Args:
            batches: finite; the same in every pass.
        """
        self._batches = batches
        self._kept: list[Any] | None = None

    def __iter__(self) -> Iterator[Any]:
        if self._kept is not None:
            yield from self._kept
            return
        kept = []
        for batch in self._batches:
            kept.append(batch)
            yield batch
        self._kept = kept


_PNG = b"\x89PNG\r\n\x1a\n"
_JPEG = b"\xff\xd8\xff"
_MARKER = 0xFF
# Markers of frames, in which the size is: C0 to CF without those of tables and the reserved one.
_FRAMES = frozenset(range(0xC0, 0xD0)) - {0xC4, 0xC8, 0xCC}


def image_size(encoded: bytes) -> tuple[int, int]:
    """Height and width of a JPEG or PNG image in pixels.

    Raises:
        ValueError: if it is neither, or its header is damaged.
    """
    if encoded.startswith(_PNG):
        if len(encoded) < 24:
            raise ValueError("the header of the PNG image is damaged")
        return int.from_bytes(encoded[20:24], "big"), int.from_bytes(encoded[16:20], "big")
    if not encoded.startswith(_JPEG):
        raise ValueError("neither a JPEG nor a PNG image")
    place = 2
    while place + 9 <= len(encoded) and encoded[place] == _MARKER:
        marker = encoded[place + 1]
        if marker == _MARKER:  # Markers may be preceded by any number of these.
            place += 1
            continue
        if marker in _FRAMES:
            height, width = encoded[place + 5 : place + 7], encoded[place + 7 : place + 9]
            return int.from_bytes(height, "big"), int.from_bytes(width, "big")
        place += 2 + int.from_bytes(encoded[place + 2 : place + 4], "big")
    raise ValueError("the header of the JPEG image is damaged")
