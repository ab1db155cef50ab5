"""The pool of embedded training images that proxies are chosen from."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import numpy.typing as npt
import tensorflow as tf

from ccp_dml.distributed.workers import SINGLE_WORKER, Workers

_NEVER = -1
# (first draw, number of draws) -> images, int64 [draws, C]
Draws = Callable[[int, int], npt.NDArray[np.int64]]


class ProxyPool:
    """Draws images, one per class and draw, and embeds each distinct one once, with the present weights.

    Images that the memory has an embedding of are not embedded; the embeddings of all others are added to it.

    Attributes:
        memory: the memory, or None.
        workers: the workers that divide the classes.
    """

    def __init__(
        self,
        draws: Draws,
        embed_images: Callable[[npt.NDArray[np.int64]], npt.NDArray[np.float32]],
        memory: PoolMemory | None = None,
        workers: Workers = SINGLE_WORKER,
    ) -> None:
        """Creates the pool.

        Args:
            draws: `draws(first, count)` returns the image indices [count, C] of the draws
                first..first+count-1; a pure function of its arguments.
            embed_images: embeds images by index: int64 [n] -> float32 [n, D], in inference mode, with the
                preprocessing of test images, not normalised.
            memory: memory of training embeddings; None: all images are embedded.
            workers: workers that divide the classes.
        """
        self._draws, self._embed_images = draws, embed_images
        self.memory, self.workers = memory, workers

    def __call__(self, first_draw: int, count: int) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.int64]]:
        """Draws a pool.

        Args:
            first_draw: number of the first draw, from 0.
            count: number of draws, at least 1.

        Returns:
            Embeddings float32 [count, C, D] and image indices int64 [count, C]; with several workers, of the
            local slice of the classes.
        """
        images = np.asarray(self._draws(first_draw, count), np.int64)
        images = images[:, self.workers.local_slice(images.shape[1])]
        # A class with fewer images than draws has some images several times.
        distinct, inverse = np.unique(images, return_inverse=True)
        embeddings = self._remembered_or_embedded(distinct)
        return embeddings[inverse.reshape(images.shape)], images

    def embed_images(self, images: npt.NDArray[np.int64]) -> npt.NDArray[np.float32]:
        """Embeds images by index as they are now, without the memory: int64 [n] -> float32 [n, D]."""
        distinct, inverse = np.unique(images, return_inverse=True)
        local = distinct[self.workers.local_slice(len(distinct))]
        return self.workers.gather(self._embedded(local))[inverse.reshape(-1)]

    def _remembered_or_embedded(self, images: npt.NDArray[np.int64]) -> npt.NDArray[np.float32]:
        if self.memory is None:
            return self._embedded(images)
        known, remembered = self.memory.recall(images)
        embeddings = np.empty((len(images), remembered.shape[1]), np.float32)
        embeddings[known] = remembered
        if not known.all():
            embeddings[~known] = self._embed_images(images[~known])
        # The memories of all workers are equal, whichever worker has embedded an image.
        new = self.workers.gather(images[~known])
        if len(new):
            self.memory.remember(new, self.workers.gather(embeddings[~known]))
        return embeddings

    def _embedded(self, images: npt.NDArray[np.int64]) -> npt.NDArray[np.float32]:
        if not len(images):
            return np.zeros((0, 1), np.float32)
        return np.asarray(self._embed_images(images), np.float32)


class PoolMemory(tf.Module):
    """The last embedding of each training image, with the step that made it.

    Embeddings of training steps are of augmented images, by the weights before the update of the step, with
    the layers in training mode. Embeddings made for a pool are of images as they are tested. Embeddings that
    are too old or not finite are not returned.

    The memory takes 4 D + 8 bytes for each training image, on the host, and is part of the checkpoints.

    Attributes:
        max_age: largest number of steps after an embedding was made during which it is returned.
        embeddings: float32 variable [N, D].
        written: int64 variable [N], the step that made each embedding, from 1; 0 if it was made before the
            first step, -1 for none.
        steps: int64 variable, number of recorded steps.
    """

    def __init__(self, image_ids: npt.NDArray[np.int64], embedding_size: int, max_age: int) -> None:
        """Creates an empty memory.

        Args:
            image_ids: int64 [N], distinct: the ids of the images 0..N-1 in labels.
            embedding_size: D.
            max_age: at least 1.

        Raises:
            ValueError: if ids are not distinct.
        """
        super().__init__(name="pool_memory")
        if len(np.unique(image_ids)) != len(image_ids):
            raise ValueError("The image ids of the pool's memory are not distinct.")
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
        """Records the embeddings of a training step; tensor code.

        Args:
            labels: int32 [B, 2] = (class, image id), of images that the memory was created for. If an image
                occurs several times, its last embedding counts.
            embeddings: raw float32 [B, D].
        """
        with tf.device("CPU"):
            ids = tf.cast(labels[:, 1], tf.int64)
            rows = tf.gather(self._order, tf.searchsorted(self._sorted_ids, ids))
            # Equal rows get equal values, so the order of writing does not matter.
            is_same = tf.equal(rows[:, tf.newaxis], rows)
            last = tf.reduce_max(tf.where(is_same, tf.range(tf.size(rows)), -1), axis=1)
            latest = tf.gather(embeddings, last)
            step = self.steps.assign_add(1, read_value=True)
            finite = tf.reduce_all(tf.math.is_finite(latest), axis=1)
            self._write(rows, latest, tf.where(finite, step, tf.constant(_NEVER, tf.int64)))

    def recall(self, images: npt.NDArray[np.int64]) -> tuple[npt.NDArray[np.bool_], npt.NDArray[np.float32]]:
        """Looks images up.

        Args:
            images: int64 [n], indices of images.

        Returns:
            bool [n], true for each image with an embedding, and these m embeddings, float32 [m, D].
        """
        written = self.written.numpy()[images]
        known = (written != _NEVER) & (int(self.steps) - written <= self.max_age)
        return known, tf.gather(self.embeddings, images[known]).numpy()

    def remember(self, images: npt.NDArray[np.int64], embeddings: npt.NDArray[np.float32]) -> None:
        """Adds embeddings [n, D] of distinct images [n] that were made with the present weights."""
        with tf.device("CPU"):
            finite = np.isfinite(embeddings).all(axis=1)
            now = np.where(finite, int(self.steps), _NEVER)
            self._write(tf.constant(images), tf.constant(embeddings), tf.constant(now, tf.int64))

    def _write(self, rows: tf.Tensor, embeddings: tf.Tensor, written: tf.Tensor) -> None:
        places = rows[:, tf.newaxis]
        self.embeddings.scatter_nd_update(places, embeddings)
        self.written.scatter_nd_update(places, tf.broadcast_to(written, tf.shape(rows)))
