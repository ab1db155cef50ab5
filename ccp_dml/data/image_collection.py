"""What a data set is to the rest of the library: labelled images that are read by index."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any, Protocol

import numpy as np

from ccp_dml.data.permutations import IntArray
from ccp_dml.data.skip_report import SkippedImage, in_words


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
