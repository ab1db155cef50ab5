"""What a data set is to the rest of the library: labelled images that are read by index."""

from __future__ import annotations

import collections
import hashlib
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Protocol

import numpy as np

from ccp_dml.data.random_streams import IntArray


class RecordSource(Protocol):
    """Random access to encoded images."""

    def __len__(self) -> int:
        """Number of records."""

    def encoded(self, rows: Sequence[int]) -> list[bytes]:
        """Returns the images of the given records, JPEG or PNG, upright RGB."""


class InMemoryRecords:
    """Encoded images held in memory."""

    def __init__(self, images: Sequence[bytes]):
        self._images = list(images)

    def __len__(self) -> int:
        return len(self._images)

    def encoded(self, rows: Sequence[int]) -> list[bytes]:
        """Returns the images of the given records."""
        return [self._images[row] for row in rows]


@dataclass(frozen=True)
class ImageCollection:
    """Labelled images that are read when asked for.

    Attributes:
        labels: int64 [N], index into `class_names`. Every class of a training collection has an image;
            collections that share one numbering, as queries and their gallery do, may miss a class.
        class_names: names of the C classes.
        image_ids: int64 [N], unique over the whole data set.
        source: where the encoded images are.
        rows: int64 [N], the record of each image in `source`.
        boxes: int64 [N, 4], top, left, height and width of the part of each encoded image that is the image,
            in pixels; None: all of it.
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
        """Number of images of each class by its name."""
        sizes = np.bincount(self.labels, minlength=self.num_classes)
        return dict(zip(self.class_names, sizes.tolist()))

    def encoded(self, indices: Sequence[int] | np.ndarray[Any, Any]) -> list[bytes]:
        """Returns the encoded images at `indices`, read in one go."""
        return self.source.encoded(self.rows[np.asarray(indices, np.int64)].tolist())

    def subset(self, indices: Sequence[int] | np.ndarray[Any, Any]) -> ImageCollection:
        """Returns the images at `indices`, in that order, with labels and classes as they are."""
        chosen = np.asarray(indices, np.int64)
        return replace(
            self,
            labels=self.labels[chosen],
            image_ids=self.image_ids[chosen],
            rows=self.rows[chosen],
            boxes=None if self.boxes is None else self.boxes[chosen],
        )

    def by_classes(self, classes: Sequence[int] | np.ndarray[Any, Any]) -> ImageCollection:
        """Returns all images of the given classes; the i-th of these becomes class i.

        Raises:
            ValueError: if a class is named twice or is out of range.
        """
        chosen = np.asarray(classes, np.int64)
        if len(np.unique(chosen)) != len(chosen):
            raise ValueError("classes must be distinct")
        if len(chosen) and (chosen.min() < 0 or chosen.max() >= self.num_classes):
            raise ValueError(f"classes must be between 0 and {self.num_classes - 1}, found {chosen.tolist()}")
        new_label = np.full(self.num_classes, -1, np.int64)
        new_label[chosen] = np.arange(len(chosen))
        part = self.subset(np.flatnonzero(new_label[self.labels] >= 0))
        names = tuple(self.class_names[label] for label in chosen)
        return replace(part, labels=new_label[part.labels], class_names=names)


@dataclass(frozen=True)
class ImageDataset:
    """The collections of a zero-shot retrieval task.

    Attributes:
        name: name of the data set.
        train: images to train (and, on held-out classes, to validate) on.
        test: images of classes that training never sees; the queries if there is a gallery.
        gallery: images to be found; None: the test images are searched for one another.
        skipped: images that are left out, as they cannot be used.
    """

    name: str
    train: ImageCollection
    test: ImageCollection
    gallery: ImageCollection | None = None
    skipped: tuple[SkippedImage, ...] = ()

    def map(self, change: Callable[[ImageCollection], ImageCollection]) -> ImageDataset:
        """Returns the data set with `change` of each of its collections."""
        return replace(
            self,
            train=change(self.train),
            test=change(self.test),
            gallery=None if self.gallery is None else change(self.gallery),
        )

    def skipped_in_words(self) -> str | None:
        """What is left out, and which classes shrank or vanished by that; None if nothing is."""
        if not self.skipped:
            return None
        evaluated = {"test": self.test} if self.gallery is None else {"query": self.test}
        parts = {"train": self.train, **evaluated, "gallery": self.gallery}
        kept = {name: part.class_sizes() for name, part in parts.items() if part is not None}
        return in_words(self.skipped, kept)


_MAX_NAMED = 20


@dataclass(frozen=True)
class SkippedImage:
    """An image of the source that cannot be used: its file, class and split, and what is wrong with it."""

    file: str
    label: str
    split: str
    reason: str


def from_metadata(metadata: Mapping[str, Any] | None) -> tuple[SkippedImage, ...]:
    """What the metadata of a prepared data set note; nothing where it was prepared whole."""
    return tuple(SkippedImage(**entry) for entry in (metadata or {}).get("skipped_images", ()))


def in_words(skipped: Sequence[SkippedImage], kept: Mapping[str, Mapping[str, int]]) -> str:
    """How many images were left out, and which classes shrank, are left with one image or vanished.

    Args:
        skipped: at least one image.
        kept: for each split the number of images that are left of each class; absent classes have none.
    """
    lost = collections.Counter((image.split, image.label) for image in skipped)
    left = {key: kept.get(key[0], {}).get(key[1], 0) for key in lost}
    total = len(skipped) + sum(sum(classes.values()) for classes in kept.values())
    shrunk = [f"{_name(*key)} to {left[key]:,} of {left[key] + lost[key]:,}" for key in lost if left[key] > 1]
    single = [_name(*key) for key in lost if left[key] == 1]
    vanished = [_name(*key) for key in lost if left[key] == 0]
    parts = [f"{len(skipped):,} of {total:,} images cannot be used and are left out"]
    if shrunk:
        parts.append(f"these classes shrank: {_listed(shrunk, _MAX_NAMED)}")
    if single:
        parts.append(f"these have one image left, less than the two that make a pair: {_listed(single)}")
    if vanished:
        parts.append(f"these vanished: {_listed(vanished)}")
    return "; ".join(parts)


def _name(split: str, label: str) -> str:
    return f"{label!r} ({split})"


def _listed(names: Iterable[str], most: int | None = None) -> str:
    names = list(names)
    more = 0 if most is None else max(0, len(names) - most)
    return ", ".join(names[: len(names) - more]) + (f" and {more:,} more" if more else "")


_RECORDS = 64


def fingerprint(collections: Iterable[ImageCollection | None]) -> str:
    """SHA-256, in hexadecimal, of all labels, class names and image ids, and of some of the images.

    Of each collection 64 evenly spaced encoded images are read, so that it costs a moment whatever the size:
    an image elsewhere that has changed, while number, order and labels have not, is not noticed.

    Args:
        collections: in a fixed order; None where there is none.
    """
    digest = hashlib.sha256()
    for collection in collections:
        if collection is None:
            digest.update(b"none")
            continue
        for numbers in (collection.labels, collection.image_ids):
            digest.update(np.ascontiguousarray(numbers, "<i8").tobytes())
        digest.update("\n".join(collection.class_names).encode())
        chosen = np.unique(np.linspace(0, len(collection) - 1, min(_RECORDS, len(collection))).astype(int))
        for encoded in collection.encoded(chosen):
            digest.update(encoded)
    return digest.hexdigest()
