"""The files of CIFAR-100 and their contents, which all variants read."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy.typing as npt

from ccp_dml.datasets.common import cifar_files
from ccp_dml.datasets.common.release import TEST, TRAIN, Listing, Release
from ccp_dml.datasets.common.source_files import Layout, SourceError, SourceFiles

CLASSES = 100
COARSE_CLASSES = 20
_RECORDS = {"train.bin": 50_000, "test.bin": 10_000}
_COARSE, _FINE = "coarse_label_names.txt", "fine_label_names.txt"
_NEEDED = (_COARSE, _FINE, *_RECORDS)


@dataclasses.dataclass(frozen=True)
class Records:
    """All images.

    Attributes:
        coarse: uint8 [N], coarse labels.
        fine: uint8 [N], fine labels.
        pixels: uint8 RGB [N, 32, 32, 3].
        image_names: names of the N images.
        coarse_names: names of the coarse classes.
        fine_names: names of the fine classes.
    """

    coarse: npt.NDArray[Any]
    fine: npt.NDArray[Any]
    pixels: cifar_files.Pixels
    image_names: list[str]
    coarse_names: tuple[str, ...]
    fine_names: tuple[str, ...]

    def rows(self) -> dict[str, int]:
        """Returns the row of each image by its name."""
        return {file: row for row, file in enumerate(self.image_names)}


def read(files: SourceFiles) -> Records:
    """Reads all records.

    Raises:
        SourceError: if a file is missing, a text has another number of names than published, or a label has
            no name.
    """
    names = {}
    for file, expected in ((_COARSE, COARSE_CLASSES), (_FINE, CLASSES)):
        names[file] = cifar_files.read_names(files, file)
        if len(names[file]) != expected:
            raise SourceError(f"{file} has {len(names[file])} names; expected {expected}")
    labels, pixels, image_names = cifar_files.read_records(files, tuple(_RECORDS), 2)
    if len(labels) and (labels[:, 0].max() >= COARSE_CLASSES or labels[:, 1].max() >= CLASSES):
        raise SourceError(f"{' and '.join(_RECORDS)} have labels without a name")
    return Records(labels[:, 0], labels[:, 1], pixels, image_names, names[_COARSE], names[_FINE])


class PublishedCifar100(Release):
    """Base of the variants, which differ in their classes and images."""

    name = "cifar100"
    page = "https://www.cs.toronto.edu/~kriz/cifar.html"
    to_get = "cifar-100-binary.tar.gz (the binary version)"
    layouts = (
        Layout(
            needed=_NEEDED,
            archives={"cifar-100-binary.tar.gz": _NEEDED},
            folders=("", "cifar-100-binary"),
        ),
    )
    counted_in = dict.fromkeys((TRAIN, TEST), tuple(_RECORDS))
    download_url = "https://www.cs.toronto.edu/~kriz/cifar-100-binary.tar.gz"

    def check_sizes(self, listing: Listing, files: SourceFiles) -> None:
        """Checks the number of records of each file, and the numbers of classes and images."""
        cifar_files.check_records(files, _RECORDS, 2)
        super().check_sizes(listing, files)
