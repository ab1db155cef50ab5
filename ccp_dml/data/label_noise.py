"""Wrong labels on purpose."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from ccp_dml.data.image_collection import ImageCollection
from ccp_dml.data.permutations import IntArray, random_keys
from ccp_dml.data.random_streams import NOISY_IMAGES, NOISY_LABELS


def add_label_noise(images: ImageCollection, share: float, seed: int) -> ImageCollection:
    """Gives a share of the images the label of another class.

    Of N images `round(share * N)` are chosen at random, and each gets one of the other classes, all equally
    likely. One image of each class, chosen at random, always keeps its label, so that no class is lost; a
    class of one image therefore stays as it is. Which images, and which labels, depends on the seed and on
    the identity of the images, not on their order.

    Args:
        images: a collection in which every class has an image.
        share: 0 <= share < 1.
        seed: any integer.

    Returns:
        The collection with its new labels.

    Raises:
        ValueError: if the share is out of range or is more than can be replaced.
    """
    if not 0 <= share < 1:
        raise ValueError(f"the share of wrong labels must be in [0, 1), found {share}")
    count = round(share * len(images))
    keeps = _one_of_each_class(images, seed)
    candidates = np.setdiff1d(np.arange(len(images)), keeps)
    if images.num_classes < 2 or count > len(candidates):
        possible = len(candidates) if images.num_classes > 1 else 0
        raise ValueError(
            f"{count} of {len(images)} labels cannot be wrong, but {possible} at most: one image of each of "
            f"the {images.num_classes} classes keeps its label"
        )
    keys = random_keys(seed, NOISY_IMAGES, images.image_ids[candidates])
    chosen = candidates[np.argsort(keys, kind="stable")[:count]]
    labels = images.labels.copy()
    others = np.uint64(max(images.num_classes - 1, 1))
    steps = 1 + (random_keys(seed, NOISY_LABELS, images.image_ids[chosen]) % others).astype(np.int64)
    labels[chosen] = (labels[chosen] + steps) % images.num_classes
    return replace(images, labels=labels)


def _one_of_each_class(images: ImageCollection, seed: int) -> IntArray:
    """The index of one random image of each class."""
    keys = random_keys(seed, NOISY_IMAGES, NOISY_LABELS, images.image_ids)
    order = np.lexsort((keys, images.labels))
    sizes = np.bincount(images.labels, minlength=images.num_classes)
    return order[(np.cumsum(sizes) - sizes)[sizes > 0]].astype(np.int64)
