"""CIFAR-10 as published in its binary version: split by classes, or as published."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator, Sequence

from ccp_dml.datasets.common import cifar_files
from ccp_dml.datasets.common.release import TEST, TRAIN, Listing, Release, Size, SourceImage
from ccp_dml.datasets.common.source_files import Layout, SourceError, SourceFiles

_NAMES = "batches.meta.txt"
_BATCHES = tuple(f"data_batch_{number}.bin" for number in range(1, 6))
_TEST_BATCH = "test_batch.bin"
_IMAGES_OF_BATCH = 10_000
_NEEDED = (_NAMES, *_BATCHES, _TEST_BATCH)


class Cifar10(Release):
    """The images of all batches: five classes for training, the other five for testing."""

    name = "cifar10"
    page = "https://www.cs.toronto.edu/~kriz/cifar.html"
    to_get = "cifar-10-binary.tar.gz (the binary version)"
    layouts = (
        Layout(
            needed=_NEEDED,
            archives={"cifar-10-binary.tar.gz": _NEEDED},
            folders=("", "cifar-10-batches-bin"),
        ),
    )
    sizes = {TRAIN: Size(5, 30000), TEST: Size(5, 30000)}
    counted_in = dict.fromkeys((TRAIN, TEST), (*_BATCHES, _TEST_BATCH))
    download_url = "https://www.cs.toronto.edu/~kriz/cifar-10-binary.tar.gz"

    def listing(self, files: SourceFiles) -> Listing:
        """Reads the images in the order of the batches."""
        names = cifar_files.read_names(files, _NAMES)
        labels, _, names_of_images = cifar_files.read_records(files, (*_BATCHES, _TEST_BATCH), 1)
        images = []
        for label, file in zip(labels[:, 0].tolist(), names_of_images):
            if label >= len(names):
                raise SourceError(f"{file} is of class {label}; expected less than {len(names)}")
            images.append(SourceImage(file, names[label], self._split(file, label)))
        return Listing(names, tuple(images))

    def check_sizes(self, listing: Listing, files: SourceFiles) -> None:
        """Checks the number of records of each batch, and the numbers of classes and images."""
        cifar_files.check_records(files, dict.fromkeys((*_BATCHES, _TEST_BATCH), _IMAGES_OF_BATCH), 1)
        super().check_sizes(listing, files)

    def open_images(
        self, files: SourceFiles, images: Sequence[SourceImage]
    ) -> Iterator[tuple[SourceImage, Callable[[], bytes]]]:
        """Yields images with functions that encode their pixels."""
        _, pixels, names_of_images = cifar_files.read_records(files, (*_BATCHES, _TEST_BATCH), 1)
        rows = {file: row for row, file in enumerate(names_of_images)}
        for image in images:
            yield image, functools.partial(cifar_files.image_file, pixels[rows[image.file]])

    def _split(self, file: str, label: int) -> str:
        return TRAIN if label < 5 else TEST


class Cifar10Closed(Cifar10):
    """The published split, in which training and test images have the same classes."""

    variant = "closed"
    sizes = {TRAIN: Size(10, 50000), TEST: Size(10, 10000)}

    def _split(self, file: str, label: int) -> str:
        return TEST if file.startswith(_TEST_BATCH) else TRAIN


RELEASES = (Cifar10(), Cifar10Closed())
