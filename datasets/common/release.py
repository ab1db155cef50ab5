"""Published data sets: their page, files, numbers of classes and images, and lists. Needs no TensorFlow."""

from __future__ import annotations

import abc
import collections
import dataclasses
import errno
import os
import pathlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import ClassVar

from ccp_dml.datasets.common.source_files import Layout, SourceError, SourceFiles

# Version of the data that builders prepare.
PREPARED_VERSION = "1.1.0"

TRAIN, TEST, QUERY, GALLERY = "train", "test", "query", "gallery"


@dataclasses.dataclass(frozen=True)
class Size:
    """Number of classes and of images of a split; None if no source that can be cited gives it."""

    classes: int
    images: int | None


@dataclasses.dataclass(frozen=True)
class SourceImage:
    """One image of a data set.

    Attributes:
        file: name of the file, relative to the top of the data set.
        label: name of the class.
        split: `train`, `test`, `query` or `gallery`.
        box: left, top, right and bottom of the object in pixels, the ends exclusive; None if unknown.
    """

    file: str
    label: str
    split: str
    box: tuple[int, int, int, int] | None = None


@dataclasses.dataclass(frozen=True)
class Listing:
    """All classes and images of a data set, in a fixed order; the place of an image is its image id."""

    class_names: tuple[str, ...]
    images: tuple[SourceImage, ...]

    def sizes(self) -> dict[str, Size]:
        """Returns the number of classes and images of each split."""
        labels = collections.defaultdict(list)
        for image in self.images:
            labels[image.split].append(image.label)
        return {split: Size(len(set(found)), len(found)) for split, found in labels.items()}


class Release(abc.ABC):
    """A data set as published.

    Attributes:
        name: name of the builder.
        variant: name of the division into classes, for data sets that have several.
        page: page on which the data set is published.
        to_get: the files that a user must get from there, for messages.
        layouts: the layouts in which it is read; the first complete one is used.
        sizes: numbers of classes and images of each split.
        total_images: number of images of all splits together, if only that is known.
        counted_in: for each split, the files of all layouts that list its images.
        has_boxes: True if images come with bounding boxes.
        box_image_size: width and height of the images that the boxes are valid for; None for any.
        download_url: address of the archive, if it can be downloaded without registration; the builder's
            `checksums.tsv` has its checksum.
    """

    VERSION: ClassVar[str] = PREPARED_VERSION

    name: str
    variant: str = "zero_shot"
    page: str
    to_get: str
    layouts: tuple[Layout, ...]
    sizes: Mapping[str, Size]
    total_images: int | None = None
    counted_in: Mapping[str, tuple[str, ...]]
    has_boxes: bool = False
    box_image_size: tuple[int, int] | None = None
    download_url: str | None = None

    def find(self, source: str | os.PathLike[str]) -> SourceFiles:
        """Finds the files of the data set.

        Args:
            source: the folder that holds the files of the data set or its archives, or one archive.

        Raises:
            SourceError: if files are missing; the message names them, and where to get and put them.
        """
        path = pathlib.Path(source).expanduser().resolve()
        if not path.exists():
            raise SourceError(f"{path} does not exist; {self.advice(path)}")
        found = [SourceFiles(path, layout) for layout in self.layouts]
        for files in found:
            if not files.missing:
                return files
        nearest = min(found, key=lambda files: len(files.missing))
        raise SourceError(f"{path} lacks {_and_so_on(nearest.missing)}; {self.advice(path)}")

    def advice(self, folder: str | os.PathLike[str]) -> str:
        """Returns a clause that says what to get, from where, and where to put it."""
        return f"get {self.to_get} from {self.page} and put it, packed or unpacked, into {folder}"

    @abc.abstractmethod
    def listing(self, files: SourceFiles) -> Listing:
        """Reads the list of all images.

        Raises:
            SourceError: if a file is not as published; the message names it, and the line of a text.
        """

    def open_images(
        self, files: SourceFiles, images: Sequence[SourceImage]
    ) -> Iterator[tuple[SourceImage, Callable[[], bytes]]]:
        """Yields images, in any order, with functions that read their bytes.

        The function of an image that does not exist raises `FileNotFoundError`.

        Raises:
            SourceError: if an archive cannot be read.
        """
        by_file = {image.file: image for image in images}
        for name, reader in files.open(list(by_file)):
            yield by_file.pop(name), reader
        for image in by_file.values():
            yield image, _absent

    def check_sizes(self, listing: Listing, files: SourceFiles) -> None:
        """Checks the numbers of classes and images.

        Args:
            listing: the list of images that was read.
            files: the files of the data set.

        Raises:
            SourceError: if a number differs; the message names the file that lists too few or too many.
        """
        found = listing.sizes()
        for split, expected in self.sizes.items():
            size = found.get(split, Size(0, 0))
            if size.classes != expected.classes or expected.images not in (None, size.images):
                raise SourceError(
                    f"{self.name}: {self._counted(files, split)} {_in_words(size)} for {split}; expected "
                    f"{_in_words(expected)}"
                )
        if self.total_images not in (None, len(listing.images)):
            raise SourceError(
                f"{self.name}: {self._counted(files, TRAIN)} {len(listing.images):,} images; expected "
                f"{self.total_images:,}"
            )

    def _counted(self, files: SourceFiles, split: str) -> str:
        """Returns the files of the layout that list the images of a split, followed by a verb."""
        names = self.counted_in[split]
        names = tuple(name for name in names if name in files.layout.needed) or names
        return f"{' and '.join(names)} {'has' if len(names) == 1 else 'have'}"


def rows(content: bytes, file: str, columns: int, header: int = 0) -> list[tuple[str, ...]]:
    """Splits the lines of a text into columns at blanks; the last column may contain blanks.

    Args:
        content: the text, in UTF-8.
        file: name of the text in errors.
        columns: number of columns of each line.
        header: number of lines at the top to skip.

    Raises:
        SourceError: if a line has fewer columns; the message names it.
    """
    try:
        lines = content.decode("utf-8-sig").splitlines()
    except UnicodeDecodeError:
        raise SourceError(f"{file} is not text in UTF-8") from None
    found = []
    for number, line in enumerate(lines[header:], header + 1):
        values = tuple(line.split(maxsplit=columns - 1))
        if len(values) == columns:
            found.append((*values[:-1], values[-1].rstrip()))
        elif values:
            raise SourceError(f"{file}, line {number}: found {len(values)} columns, expected {columns}")
    return found


def integers(values: Sequence[str], file: str) -> tuple[int, ...]:
    """Rounds numbers in a text to integers.

    Raises:
        SourceError: if one is not a number.
    """
    try:
        return tuple(round(float(value)) for value in values)
    except (ValueError, OverflowError):
        raise SourceError(f"{file}: {' '.join(values)!r} are not numbers") from None


def _absent() -> bytes:
    raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT))


def _in_words(size: Size) -> str:
    images = "" if size.images is None else f" and {size.images:,} images"
    return f"{size.classes:,} classes{images}"


def _and_so_on(names: Sequence[str]) -> str:
    named = ", ".join(names[:5])
    return f"{named} and {len(names) - 5:,} more" if len(names) > 5 else named
