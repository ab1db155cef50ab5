"""The images of each class, as samplers look them up."""

from __future__ import annotations

from typing import Any

import numpy as np

from ccp_dml.data.permutations import IntArray


class ImagesByClass:
    """Indices of the images of each class, in one array.

    Attributes:
        sizes: int64 [C], number of images of each class.
    """

    def __init__(self, labels: np.ndarray[Any, Any]):
        """Sorts the images by class.

        Args:
            labels: integers [N] in 0..C-1, the class of each image; every class has an image.

        Raises:
            ValueError: if `labels` is empty, not a list of integers, negative, or leaves out a class.
        """
        labels = np.asarray(labels)
        if labels.ndim != 1 or not len(labels) or not np.issubdtype(labels.dtype, np.integer):
            raise ValueError(
                f"labels must be a non-empty list of integers, found {labels.dtype} {labels.shape}"
            )
        if labels.min() < 0:
            raise ValueError(f"labels must be 0 or more, found {labels.min()}")
        self.sizes = np.bincount(labels).astype(np.int64)
        if not self.sizes.all():
            raise ValueError(f"class {int(np.argmin(self.sizes))} of {len(self.sizes)} has no image")
        self._indices = np.argsort(labels, kind="stable").astype(np.int64)
        self._begin = np.cumsum(self.sizes) - self.sizes

    def __len__(self) -> int:
        """Number of classes C."""
        return len(self.sizes)

    @property
    def mean_size(self) -> float:
        """Images per class, on average."""
        return len(self._indices) / len(self.sizes)

    def check_classes_per_batch(self, number: int) -> None:
        """Checks that a batch can hold so many distinct classes.

        Raises:
            ValueError: if it cannot.
        """
        if not 1 <= number <= len(self):
            raise ValueError(
                f"classes_per_batch must be between 1 and the number of training classes, {len(self)}, "
                f"found {number}"
            )

    def indices(self, classes: IntArray, places: IntArray) -> IntArray:
        """Index of the `places[i, k]`-th image of `classes[i]`."""
        return self._indices[self._begin[classes][:, None] + places]
