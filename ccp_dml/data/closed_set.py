"""Closed-set splits: training, validation and test images of the same classes."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from ccp_dml.data.image_collection import ImageCollection, ImageDataset, RecordSource
from ccp_dml.data.permutations import IntArray, random_keys
from ccp_dml.data.random_streams import CLOSED_SET

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
