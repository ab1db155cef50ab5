"""The pool of embedded training images that new proxies are chosen from."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import numpy.typing as npt
import tensorflow as tf

from ccp_dml.distributed.workers import SINGLE_WORKER, Workers


class ProxyPool:
    """Draws images, one per class and draw, and embeds each distinct one once with the present weights.

    With a memory, those that it remembers are not embedded, and it takes note of the others.

    The object is what `AlternatingProjections` calls to draw its pool.
    """

    def __init__(
        self,
        draws: Callable[[int, int], npt.NDArray[np.int64]],
        embed_images: Callable[[npt.NDArray[np.int64]], npt.NDArray[np.float32]],
        memory: PoolMemory | None = None,
        workers: Workers = SINGLE_WORKER,
    ) -> None:
        """Creates the pool.

        Args:
            draws: `draws(first, count)` gives the image indices [count, C] of the draws
                first..first+count-1, a pure function of its arguments.
            embed_images: embeds images by index: int64 [n] -> float32 [n, D], in inference mode, test
                preprocessing, not normalised.
            memory: of training embeddings; None: all are made anew.
            workers: who divide the classes among them.
        """
        self._draws, self._embed_images = draws, embed_images
        self.memory, self.workers = memory, workers

    def __call__(self, first_draw: int, count: int) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.int64]]:
        """Draws a pool.

        Args:
            first_draw: number of the first draw, from 0.
            count: number of draws, at least 1.

        Returns:
            Embeddings float32 [count, C, D] and the image indices int64 [count, C]; with several workers, of
            the classes that are this one's share.
        """
        images = np.asarray(self._draws(first_draw, count), np.int64)
        images = images[:, self.workers.local_slice(images.shape[1])]
        # A class with fewer images than draws is drawn again and again.
        distinct, inverse = np.unique(images, return_inverse=True)
        embeddings = self._remembered_or_embedded(distinct)
        return embeddings[inverse.reshape(images.shape)], images

    def _remembered_or_embedded(self, images: npt.NDArray[np.int64]) -> npt.NDArray[np.float32]:
        if self.memory is None:
            return self._embedded(images)
        known, remembered = self.memory.recall(images)
        embeddings = np.empty((len(images), remembered.shape[1]), np.float32)
        embeddings[known] = remembered
        if not known.all():
            embeddings[~known] = self._embed_images(images[~known])
        # The memory is the same everywhere, whoever embedded an image.
        new = self.workers.gather(images[~known])
        if len(new):
            self.memory.remember(new, self.workers.gather(embeddings[~known]))
        return embeddings

    def embed_images(self, images: npt.NDArray[np.int64]) -> npt.NDArray[np.float32]:
        """Embeds images by index: int64 [n] -> float32 [n, D], as now, whatever the memory has of them."""
        distinct, inverse = np.unique(images, return_inverse=True)
        own = distinct[self.workers.local_slice(len(distinct))]
        return self.workers.gather(self._embedded(own))[inverse.reshape(-1)]

    def _embedded(self, images: npt.NDArray[np.int64]) -> npt.NDArray[np.float32]:
        if not len(images):
            return np.zeros((0, 1), np.float32)
        return np.asarray(self._embed_images(images), np.float32)


_NEVER = -1


class PoolMemory(tf.Module):
    """The last embedding of every training image, with the step that made it.

    A training step's embeddings are of augmented images, by the weights before that step's update and with
    the layers as they are in training; an embedding made for a pool is of the image as it is tested. What is
    too old or not finite is not given.

    It takes 4 D + 8 bytes for each training image, on the host, and is part of the checkpoints.

    Attributes:
        max_age: an embedding is given if at most so many steps were noted after it.
        embeddings: float32 variable [N, D].
        written: int64 variable [N], the step that made each embedding, from 1; 0 for one that was made before
            all of them, -1 for none.
        steps: int64 variable, steps noted so far.
    """

    def __init__(self, image_ids: npt.NDArray[np.int64], embedding_size: int, max_age: int) -> None:
        """Creates an empty memory.

        Args:
            image_ids: int64 [N], distinct: the ids that labels give to images 0..N-1.
            embedding_size: D.
            max_age: at least 1.

        Raises:
            ValueError: if `max_age` is less than 1 or ids are not distinct.
        """
        super().__init__(name="pool_memory")
        if max_age < 1:
            raise ValueError(f"max_age is {max_age}; at least 1 is expected.")
        if len(np.unique(image_ids)) != len(image_ids):
            raise ValueError("The image ids must be distinct.")
        self.max_age = max_age
        self._order = np.argsort(image_ids)
        self._sorted_ids = np.asarray(image_ids, np.int64)[self._order]
        with tf.device("CPU"):
            zeros = tf.zeros([len(image_ids), embedding_size])
            self.embeddings = tf.Variable(zeros, trainable=False, name="embeddings")
            self.written = tf.Variable(
                tf.fill([len(image_ids)], tf.constant(_NEVER, tf.int64)), trainable=False, name="written"
            )
            self.steps = tf.Variable(0, trainable=False, dtype=tf.int64, name="steps")

    def record(self, labels: tf.Tensor, embeddings: tf.Tensor) -> None:
        """Takes note of a training step; to be called in tensor code.

        Args:
            labels: int32 [B, 2] = (class, image id), of images that the memory was made for. An image may
                come several times; the last one counts.
            embeddings: raw float32 [B, D].
        """
        with tf.device("CPU"):
            ids = tf.cast(labels[:, 1], tf.int64)
            rows = tf.gather(self._order, tf.searchsorted(self._sorted_ids, ids))
            # Equal values for equal rows, so that the order of writing does not matter.
            alike = tf.equal(rows[:, tf.newaxis], rows)
            last = tf.reduce_max(tf.where(alike, tf.range(tf.size(rows)), -1), axis=1)
            latest = tf.gather(embeddings, last)
            step = self.steps.assign_add(1, read_value=True)
            finite = tf.reduce_all(tf.math.is_finite(latest), axis=1)
            self._write(rows, latest, tf.where(finite, step, tf.constant(_NEVER, tf.int64)))

    def recall(self, images: npt.NDArray[np.int64]) -> tuple[npt.NDArray[np.bool_], npt.NDArray[np.float32]]:
        """Returns what is remembered of images.

        Args:
            images: int64 [n], indices of images.

        Returns:
            Whether each is remembered, bool [n]; and their embeddings [m, D], those that are.
        """
        written = self.written.numpy()[images]
        known = (written != _NEVER) & (int(self.steps) - written <= self.max_age)
        return known, tf.gather(self.embeddings, images[known]).numpy()

    def remember(self, images: npt.NDArray[np.int64], embeddings: npt.NDArray[np.float32]) -> None:
        """Takes note of embeddings [n, D] of distinct images [n] that were made now."""
        with tf.device("CPU"):
            finite = np.isfinite(embeddings).all(axis=1)
            now = np.where(finite, int(self.steps), _NEVER)
            self._write(tf.constant(images), tf.constant(embeddings), tf.constant(now, tf.int64))

    def _write(self, rows: tf.Tensor, embeddings: tf.Tensor, written: tf.Tensor) -> None:
        places = rows[:, tf.newaxis]
        self.embeddings.scatter_nd_update(places, embeddings)
        self.written.scatter_nd_update(places, tf.broadcast_to(written, tf.shape(rows)))
