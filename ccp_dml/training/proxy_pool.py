"""The pool of embedded training images that new proxies are chosen from."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import numpy.typing as npt

from ccp_dml.training.pool_memory import PoolMemory
from ccp_dml.workers import ALONE, Workers


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
        workers: Workers = ALONE,
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
        self._draws, self._memory, self._workers = draws, memory, workers
        self._embed_images = embed_images

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
        images = images[:, self._workers.share(images.shape[1])]
        # A class with fewer images than draws is drawn again and again.
        distinct, inverse = np.unique(images, return_inverse=True)
        embeddings = self._remembered_or_embedded(distinct)
        return embeddings[inverse.reshape(images.shape)], images

    def _remembered_or_embedded(self, images: npt.NDArray[np.int64]) -> npt.NDArray[np.float32]:
        if self._memory is None:
            return self._embedded(images)
        known, remembered = self._memory.recall(images)
        embeddings = np.empty((len(images), remembered.shape[1]), np.float32)
        embeddings[known] = remembered
        if not known.all():
            embeddings[~known] = self._embed_images(images[~known])
        # The memory is the same everywhere, whoever embedded an image.
        new = self._workers.gather(images[~known])
        if len(new):
            self._memory.remember(new, self._workers.gather(embeddings[~known]))
        return embeddings

    def embed_images(self, images: npt.NDArray[np.int64]) -> npt.NDArray[np.float32]:
        """Embeds images by index: int64 [n] -> float32 [n, D], as now, whatever the memory has of them."""
        distinct, inverse = np.unique(images, return_inverse=True)
        own = distinct[self._workers.share(len(distinct))]
        return self._workers.gather(self._embedded(own))[inverse.reshape(-1)]

    def _embedded(self, images: npt.NDArray[np.int64]) -> npt.NDArray[np.float32]:
        if not len(images):
            return np.zeros((0, 1), np.float32)
        return np.asarray(self._embed_images(images), np.float32)
