"""Collections of labelled images that are read by index, and data sets of such collections."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Protocol

import numpy as np

from ccp_dml.data.random_streams import IntArray

_FINGERPRINT_IMAGES = 100_000
_IMAGES_AT_A_TIME = 1024
_MAX_SHRUNK_CLASSES = 20


class RecordSource(Protocol):
    """Random access to encoded images."""

    def __len__(self) -> int:
        """Returns the number of records."""

    def encoded(self, rows: Sequence[int]) -> list[bytes]:
        """Returns the upright RGB images, JPEG or PNG, of the given records."""


class InMemoryRecords:
    """Encoded images in memory."""

    def __init__(self, images: Sequence[bytes]):
        self._images = list(images)

    def __len__(self) -> int:
        return len(self._images)

    def encoded(self, rows: Sequence[int]) -> list[bytes]:
        """Returns the images of the given records."""
        return [self._images[row] for row in rows]


class JoinedRecords:
    """The records of several sources, one source after the other."""

    def __init__(self, sources: Sequence[RecordSource]):
        self._sources = list(sources)
        self._ends = np.cumsum([len(source) for source in self._sources])

    def __len__(self) -> int:
        return int(self._ends[-1])

    def encoded(self, rows: Sequence[int]) -> list[bytes]:
        """Returns the images of the given records; each source is read once."""
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


@dataclass(frozen=True)
class ImageCollection:
    """Labelled images that are read on demand.

    Attributes:
        labels: int64 [N], index into `class_names`. Every class of a training collection has an image.
            Collections that share a numbering of classes, such as queries and gallery, may lack some classes.
        class_names: names of the C classes.
        image_ids: int64 [N], unique in the data set.
        source: the encoded images.
        rows: int64 [N], record of each image in `source`.
        boxes: int64 [N, 4], top, left, height and width in pixels to which each encoded image is cropped;
            None to use the full images.

    Example:
        >>> source = ccp_dml.data.from_arrays(np.zeros([3, 8, 8, 1]), ["dog", "cat", "dog"])
        >>> source.num_classes, source.class_sizes()
        (2, {'cat': 1, 'dog': 2})
        >>> source.by_classes([1]).class_names
        ('dog',)
    """

    labels: IntArray
    class_names: tuple[str, ...]
    image_ids: IntArray
    source: RecordSource
    rows: IntArray
    boxes: IntArray | None = None

    def __post_init__(self) -> None:
        for name in ("labels", "image_ids", "rows"):
            found = np.asarray(getattr(self, name))
            if found.shape != (len(self.labels),):
                raise ValueError(f"{name} must have shape ({len(self.labels)},), found {found.shape}")
            object.__setattr__(self, name, found.astype(np.int64))
        if self.boxes is not None and self.boxes.shape != (len(self.labels), 4):
            raise ValueError(f"boxes must have shape ({len(self.labels)}, 4), found {self.boxes.shape}")
        if len(self) and (self.labels.min() < 0 or self.labels.max() >= self.num_classes):
            raise ValueError(
                f"labels must be between 0 and {self.num_classes - 1}, "
                f"found {self.labels.min()} to {self.labels.max()}"
            )

    def __len__(self) -> int:
        return len(self.labels)

    @property
    def num_classes(self) -> int:
        """Number of classes C."""
        return len(self.class_names)

    def class_sizes(self) -> dict[str, int]:
        """Returns the number of images of each class by its name."""
        sizes = np.bincount(self.labels, minlength=self.num_classes)
        return dict(zip(self.class_names, sizes.tolist()))

    def encoded(self, indices: Sequence[int] | np.ndarray[Any, Any]) -> list[bytes]:
        """Reads the encoded images at `indices`, all at once."""
        return self.source.encoded(self.rows[np.asarray(indices, np.int64)].tolist())

    def subset(self, indices: Sequence[int] | np.ndarray[Any, Any]) -> ImageCollection:
        """Returns the images at `indices`, in that order, with unchanged labels and classes."""
        chosen = np.asarray(indices, np.int64)
        return replace(
            self,
            labels=self.labels[chosen],
            image_ids=self.image_ids[chosen],
            rows=self.rows[chosen],
            boxes=None if self.boxes is None else self.boxes[chosen],
        )

    def by_classes(self, classes: Sequence[int] | np.ndarray[Any, Any]) -> ImageCollection:
        """Returns all images of the given classes; the i-th given class becomes class i.

        Raises:
            ValueError: if a class is repeated or out of range.
        """
        chosen = np.asarray(classes, np.int64)
        if len(np.unique(chosen)) != len(chosen):
            raise ValueError("classes must be distinct")
        if len(chosen) and (chosen.min() < 0 or chosen.max() >= self.num_classes):
            raise ValueError(f"classes must be between 0 and {self.num_classes - 1}, found {chosen.tolist()}")
        new_label = np.full(self.num_classes, -1, np.int64)
        new_label[chosen] = np.arange(len(chosen))
        found = self.subset(np.flatnonzero(new_label[self.labels] >= 0))
        names = tuple(self.class_names[label] for label in chosen)
        return replace(found, labels=new_label[found.labels], class_names=names)


def join(collections: Sequence[ImageCollection]) -> ImageCollection:
    """Returns the images of several collections as one, in which classes of equal names are one class.

    Classes are numbered in the order of the collections. Boxes are kept if all collections have them.
    """
    names = tuple(dict.fromkeys(name for images in collections for name in images.class_names))
    number = {name: label for label, name in enumerate(names)}
    sources = [images.source for images in collections]
    boxes = [images.boxes for images in collections if images.boxes is not None]
    begins = np.cumsum([0, *(len(source) for source in sources[:-1])])
    return ImageCollection(
        labels=np.concatenate(
            [np.array([number[name] for name in images.class_names])[images.labels] for images in collections]
        ),
        class_names=names,
        image_ids=np.concatenate([images.image_ids for images in collections]),
        source=JoinedRecords(sources),
        rows=np.concatenate([images.rows + begin for images, begin in zip(collections, begins)]),
        boxes=np.concatenate(boxes) if len(boxes) == len(collections) else None,
    )


def fingerprint(collections: Iterable[ImageCollection | None]) -> str:
    """Hashes all labels, class names and image ids of collections, and their images.

    Of a collection with more than 100,000 images, it reads as many that are evenly spaced. A change of the
    others that keeps the number, order and labels is not noticed.

    Args:
        collections: in a fixed order; None for a missing one.

    Returns:
        SHA-256 in hexadecimal.
    """
    digest = hashlib.sha256()
    for images in collections:
        if images is None:
            digest.update(b"none")
            continue
        for numbers in (images.labels, images.image_ids):
            digest.update(np.ascontiguousarray(numbers, "<i8").tobytes())
        digest.update("\n".join(images.class_names).encode())
        count = min(_FINGERPRINT_IMAGES, len(images))
        chosen = np.unique(np.linspace(0, len(images) - 1, count).astype(int))
        for first in range(0, len(chosen), _IMAGES_AT_A_TIME):
            for encoded in images.encoded(chosen[first : first + _IMAGES_AT_A_TIME]):
                digest.update(encoded)
    return digest.hexdigest()


@dataclass(frozen=True)
class SkippedImage:
    """An unusable image of the source: its file, class and split, and the reason."""

    file: str
    label: str
    split: str
    reason: str


@dataclass(frozen=True)
class ImageDataset:
    """The collections of a retrieval task.

    Attributes:
        name: name of the data set.
        train: images for training and, if classes are held out, for validation.
        test: images of classes that are not trained on; the queries if there is a gallery.
        gallery: images to be found; None if test images are searched for one another.
        validation: images of classes for validation; None to hold out classes of `train`.
        skipped: unusable images, which are left out.
    """

    name: str
    train: ImageCollection
    test: ImageCollection
    gallery: ImageCollection | None = None
    skipped: tuple[SkippedImage, ...] = ()
    validation: ImageCollection | None = None

    def map(self, change: Callable[[ImageCollection], ImageCollection]) -> ImageDataset:
        """Returns the data set with a function applied to each collection."""
        return replace(
            self,
            train=change(self.train),
            test=change(self.test),
            gallery=None if self.gallery is None else change(self.gallery),
            validation=None if self.validation is None else change(self.validation),
        )

    def fingerprint(self) -> str:
        """Hashes the collections; see `fingerprint`."""
        validation = [] if self.validation is None else [self.validation]
        return fingerprint((self.train, self.test, self.gallery, *validation))

    def skipped_in_words(self) -> str | None:
        """Describes the images that are left out and the classes that shrank; None if there are none."""
        if not self.skipped:
            return None
        splits = {"train": self.train, "test" if self.gallery is None else "query": self.test}
        for name, images in (("gallery", self.gallery), ("validation", self.validation)):
            if images is not None:
                splits[name] = images
        sizes = {name: images.class_sizes() for name, images in splits.items()}
        return _skipped_in_words(self.skipped, sizes)


def _skipped_in_words(skipped: Sequence[SkippedImage], sizes: Mapping[str, Mapping[str, int]]) -> str:
    """Describes skipped images, given the number of remaining images of each class of each split."""
    lost = Counter((image.split, image.label) for image in skipped)
    left = {key: sizes.get(key[0], {}).get(key[1], 0) for key in lost}
    total = len(skipped) + sum(sum(classes.values()) for classes in sizes.values())
    names = {(split, label): f"{label!r} ({split})" for split, label in lost}
    shrunk = [f"{names[key]} to {left[key]:,} of {left[key] + lost[key]:,}" for key in lost if left[key] > 1]
    single = [names[key] for key in lost if left[key] == 1]
    vanished = [names[key] for key in lost if left[key] == 0]
    clauses = [f"{len(skipped):,} of {total:,} images cannot be used and are left out"]
    if shrunk:
        more = len(shrunk) - _MAX_SHRUNK_CLASSES
        ending = f" and {more:,} more" if more > 0 else ""
        clauses.append(f"these classes shrank: {', '.join(shrunk[:_MAX_SHRUNK_CLASSES])}{ending}")
    if single:
        clauses.append(f"these have one image left, less than the two that make a pair: {', '.join(single)}")
    if vanished:
        clauses.append(f"these vanished: {', '.join(vanished)}")
    return "; ".join(clauses)
