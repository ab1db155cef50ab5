"""Splits of classes or images into training, validation and test sets, and label noise."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from ccp_dml.data.collection import ImageCollection, ImageDataset, join
from ccp_dml.data.random_streams import (
    CLOSED_SET,
    NOISY_IMAGES,
    NOISY_LABELS,
    IntArray,
    KeyArray,
    random_keys,
)

_TRAIN_SHARE, _TEST_SHARE = 0.65, 0.2
# Smallest class with two validation and two test images.
_SMALLEST_CLASS = 10


def class_fold(num_classes: int, num_folds: int, fold: int) -> tuple[IntArray, IntArray]:
    """Returns the classes of one fold of a cross-validation over classes.

    The classes are cut in order into `num_folds` blocks of almost equal size. Fold 1 validates on the last
    block, fold 2 on the block before it, and so on. With a single fold, all classes train and validate.

    Args:
        num_classes: number of classes C.
        num_folds: number of blocks, 1..C.
        fold: number of the fold, 1..num_folds.

    Returns:
        Training classes and validation classes, both int64 and ascending.

    Raises:
        ValueError: if an argument is out of range.
    """
    if not 1 <= num_folds <= num_classes:
        raise ValueError(
            f"the number of folds must be between 1 and the {num_classes} classes, found {num_folds}"
        )
    if not 1 <= fold <= num_folds:
        raise ValueError(f"the fold must be between 1 and {num_folds}, found {fold}")
    classes = np.arange(num_classes)
    if num_folds == 1:
        return classes, classes
    bounds = np.floor(np.linspace(0, num_classes, num_folds + 1)).astype(np.int64)
    validation = classes[bounds[num_folds - fold] : bounds[num_folds - fold + 1]]
    return np.setdiff1d(classes, validation), validation


def hold_out_classes(num_classes: int, fraction: float) -> tuple[IntArray, IntArray]:
    """Holds out the last classes for validation.

    Args:
        num_classes: number of classes C.
        fraction: share of the classes to hold out, 0 <= fraction < 1, rounded to a number of classes. At
            least one class is held out, unless the fraction is 0.

    Returns:
        Training classes and validation classes, both int64 and ascending.

    Raises:
        ValueError: if the fraction is out of range or leaves no class to train on.
    """
    if not 0 <= fraction < 1:
        raise ValueError(f"the fraction of held-out classes must be in [0, 1), found {fraction}")
    held_out = max(1, round(fraction * num_classes)) if fraction else 0
    if held_out >= num_classes:
        raise ValueError(
            f"holding out the share {fraction:g} of {num_classes} class(es) leaves none to train on"
        )
    classes = np.arange(num_classes)
    return classes[: num_classes - held_out], classes[num_classes - held_out :]


def closed_set(
    dataset: ImageDataset, seed: int | None = None
) -> tuple[ImageCollection, ImageCollection, ImageCollection]:
    """Splits all images of a data set, including test images and gallery, within each class.

    Args:
        dataset: the data set.
        seed: seed of the order of the images of each class; None for their order in the data set.

    Returns:
        Training, validation and test images with the same classes; see `split_images`.

    Raises:
        ValueError: if no class is large enough to be retrieved in validation and test.
    """
    others = [images for images in (dataset.validation, dataset.gallery) if images is not None]
    images = join([dataset.train, dataset.test, *others])
    keys = None if seed is None else random_keys(seed, CLOSED_SET, images.image_ids)
    train, validation, test = (images.subset(split) for split in split_images(images.labels, keys))
    for name, found in (("validation", validation), ("test", test)):
        if np.bincount(found.labels, minlength=1).max() < 2:
            largest = np.bincount(images.labels).max()
            raise ValueError(
                f"no class has two images in the {name} split, so no query has a positive; "
                f"expected classes of at least {_SMALLEST_CLASS} images, found at most {largest}"
            )
    return train, validation, test


def split_images(labels: IntArray, keys: KeyArray | None = None) -> tuple[IntArray, IntArray, IntArray]:
    """Splits the images of each class into 65 % for training, 20 % for testing, and the rest for validation.

    Of n images, the first `round(0.65 n)` train, the last `round(0.2 n)` test, and those between validate,
    where halves are rounded to even. A class of one image only trains. A class of two has no test image, and
    a class of three or four has no validation image.

    Args:
        labels: int64 [N], class of each image.
        keys: uint64 [N], keys that order the images of a class; None for the order given.

    Returns:
        Indices of the training, validation and test images, int64 and ascending.
    """
    sizes = np.bincount(labels)
    order = np.lexsort((np.arange(len(labels)) if keys is None else keys, labels))
    place = np.empty(len(labels), np.int64)
    place[order] = np.arange(len(labels)) - (np.cumsum(sizes) - sizes)[labels[order]]
    num_train, num_test = np.rint(_TRAIN_SHARE * sizes)[labels], np.rint(_TEST_SHARE * sizes)[labels]
    trains, tests = place < num_train, place >= sizes[labels] - num_test
    return np.flatnonzero(trains), np.flatnonzero(~trains & ~tests), np.flatnonzero(tests)


def add_label_noise(images: ImageCollection, share: float, seed: int) -> ImageCollection:
    """Replaces the labels of a share of the images by those of other classes.

    Of N images, `round(share * N)` are chosen at random, and each gets one of the other classes with equal
    probability. One random image of each class always keeps its label, so no class is lost; a class of one
    image therefore does not change. Images and labels are functions of the seed and the image ids, not of the
    order of the images.

    Args:
        images: a collection in which every class has an image.
        share: share of wrong labels, 0 <= share < 1.
        seed: any integer.

    Returns:
        The collection with the new labels.

    Raises:
        ValueError: if the share is out of range, or larger than the share of labels that can be replaced.
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
    """Returns the index of one random image of each class."""
    keys = random_keys(seed, NOISY_IMAGES, NOISY_LABELS, images.image_ids)
    order = np.lexsort((keys, images.labels))
    sizes = np.bincount(images.labels, minlength=images.num_classes)
    return order[(np.cumsum(sizes) - sizes)[sizes > 0]].astype(np.int64)
