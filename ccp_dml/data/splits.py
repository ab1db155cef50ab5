"""Zero-shot splits: training and validation sets that share no class."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from ccp_dml.data.collection import ImageCollection, ImageDataset, RecordSource
from ccp_dml.data.random_streams import CLOSED_SET, NOISY_IMAGES, NOISY_LABELS, IntArray, random_keys


def class_fold(num_classes: int, num_folds: int, fold: int) -> tuple[IntArray, IntArray]:
    """Classes of one fold of a cross-validation over classes.

    The classes in order are cut into `num_folds` blocks of almost equal size; fold 1 validates on the last
    block, fold 2 on the one before it, and so on. With a single fold nothing is held out.

    Args:
        num_classes: number of classes C.
        num_folds: number of blocks, 1..C.
        fold: which fold, 1..num_folds.

    Returns:
        (training classes, validation classes), both int64, ascending; a class's place is its new label.

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
        fraction: share of the classes to hold out, 0 <= fraction < 1; rounded to a whole number of classes,
            at least one unless the fraction is 0.

    Returns:
        (training classes, validation classes), both int64, ascending.

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


TRAIN_SHARE, TEST_SHARE = 0.65, 0.2
# The smallest class of which two images validate and two test.
_ENOUGH = 10


class JoinedRecords:
    """The records of several sources, one after the other."""

    def __init__(self, sources: Sequence[RecordSource]):
        self._sources = list(sources)
        self._ends = np.cumsum([len(source) for source in self._sources])

    def __len__(self) -> int:
        return int(self._ends[-1])

    def encoded(self, rows: Sequence[int]) -> list[bytes]:
        """Returns the images of the given records; each source is read in one go."""
        wanted = np.asarray(rows, np.int64)
        owner = np.searchsorted(self._ends, wanted, side="right")
        images = [b""] * len(wanted)
        for number, source in enumerate(self._sources):
            places = np.flatnonzero(owner == number)
            if len(places):
                local = wanted[places] - (self._ends[number] - len(source))
                for place, image in zip(places, source.encoded(local.tolist())):
                    images[place] = image
        return images


def join(collections: Sequence[ImageCollection]) -> ImageCollection:
    """One collection of the images of several; classes of equal names become one.

    Classes are numbered in the order of the collections, and in each as they are there.
    """
    names = tuple(dict.fromkeys(name for part in collections for name in part.class_names))
    number = {name: label for label, name in enumerate(names)}
    sources = [part.source for part in collections]
    boxes = [part.boxes for part in collections if part.boxes is not None]
    begins = np.cumsum([0, *(len(source) for source in sources[:-1])])
    return ImageCollection(
        labels=np.concatenate(
            [np.array([number[name] for name in part.class_names])[part.labels] for part in collections]
        ),
        class_names=names,
        image_ids=np.concatenate([part.image_ids for part in collections]),
        source=JoinedRecords(sources),
        rows=np.concatenate([part.rows + begin for part, begin in zip(collections, begins)]),
        boxes=np.concatenate(boxes) if len(boxes) == len(collections) else None,
    )


def closed_set(
    dataset: ImageDataset, seed: int | None = None
) -> tuple[ImageCollection, ImageCollection, ImageCollection]:
    """Splits all images of a data set, gallery included, so that every class trains, validates and tests.

    Args:
        dataset: the data set; what it trains and tests on plays no part.
        seed: of the order of the images of each class; None: their order in the data set.

    Returns:
        (training, validation, test) images, of one numbering of classes; see `split_images`.

    Raises:
        ValueError: if no class is large enough to be retrieved in validation and test.
    """
    parts = [dataset.train, dataset.test, *([] if dataset.gallery is None else [dataset.gallery])]
    images = join(parts)
    keys = None if seed is None else random_keys(seed, CLOSED_SET, images.image_ids)
    train, validation, test = (images.subset(part) for part in split_images(images.labels, keys))
    for name, part in (("validation", validation), ("test", test)):
        if np.bincount(part.labels, minlength=1).max() < 2:
            largest = np.bincount(images.labels).max()
            raise ValueError(
                f"no class has two images in the {name} part, of which one could find the other; "
                f"expected classes of at least {_ENOUGH} images, found at most {largest}"
            )
    return train, validation, test


def split_images(
    labels: IntArray, keys: np.ndarray[tuple[int, ...], np.dtype[np.uint64]] | None = None
) -> tuple[IntArray, IntArray, IntArray]:
    """Splits the images of each class into 65 % to train, 20 % to test, and the rest to validate.

    Of n images the first `round(0.65 n)` train, the last `round(0.2 n)` test, those between validate; halves
    are rounded to even. A class of one image only trains; one of two has none to test, and one of three or
    four none to validate.

    Args:
        labels: int64 [N], the class of each image.
        keys: uint64 [N]; images of a class are in the order of their keys; None: in the order given.

    Returns:
        Indices of the training, validation and test images, int64, each ascending.
    """
    sizes = np.bincount(labels)
    order = np.lexsort((np.arange(len(labels)) if keys is None else keys, labels))
    place = np.empty(len(labels), np.int64)
    place[order] = np.arange(len(labels)) - (np.cumsum(sizes) - sizes)[labels[order]]
    num_train, num_test = np.rint(TRAIN_SHARE * sizes)[labels], np.rint(TEST_SHARE * sizes)[labels]
    trains, tests = place < num_train, place >= sizes[labels] - num_test
    return np.flatnonzero(trains), np.flatnonzero(~trains & ~tests), np.flatnonzero(tests)


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
