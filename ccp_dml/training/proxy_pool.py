"""The pool of embedded training images that new proxies are chosen from."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import numpy.typing as npt


class ProxyPool:
    """Draws images, one per class and draw, and embeds each distinct one once with the present weights.

    The object is what `AlternatingProjections` calls to draw its pool.
    """

    def __init__(
        self,
        draws: Callable[[int, int], npt.NDArray[np.int64]],
        embed_images: Callable[[npt.NDArray[np.int64]], npt.NDArray[np.float32]],
    ) -> None:
        """Creates the pool.

        Args:
            draws: `draws(first, count)` gives the image indices [count, C] of the draws
                first..first+count-1, a pure function of its arguments.
            embed_images: embeds images by index: int64 [n] -> float32 [n, D], in inference mode, test
                preprocessing, not normalised.
        """
        self._draws = draws
        self._embed_images = embed_images

    def __call__(self, first_draw: int, count: int) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.int64]]:
        """Draws a pool.

        Args:
            first_draw: number of the first draw, from 0.
            count: number of draws, at least 1.

        Returns:
            Embeddings float32 [count, C, D] and the image indices int64 [count, C].
        """
        images = np.asarray(self._draws(first_draw, count), np.int64)
        # A class with fewer images than draws is drawn again and again.
        distinct, inverse = np.unique(images, return_inverse=True)
        embeddings = np.asarray(self._embed_images(distinct), np.float32)
        return embeddings[inverse.reshape(images.shape)], images

    def embed_images(self, images: npt.NDArray[np.int64]) -> npt.NDArray[np.float32]:
        """Embeds images by index: int64 [n] -> float32 [n, D], as now."""
        distinct, inverse = np.unique(images, return_inverse=True)
        return np.asarray(self._embed_images(distinct), np.float32)[inverse.reshape(-1)]
