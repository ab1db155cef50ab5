"""The files of CIFAR-100 and what is in them."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy.typing as npt

from datasets import cifar_files
from datasets.source_files import Layout, SourceError, SourceFiles

CLASSES = 100
COARSE_CLASSES = 20
FILES = ("train.bin", "test.bin")
IMAGES = (50_000, 10_000)

_COARSE, _FINE = "coarse_label_names.txt", "fine_label_names.txt"
_NEEDED = (_COARSE, _FINE, *FILES)
LAYOUTS = (
    Layout(
        needed=_NEEDED,
        archives={"cifar-100-binary.tar.gz": _NEEDED},
        folders=("", "cifar-100-binary"),
    ),
)


@dataclasses.dataclass(frozen=True)
class Records:
    """All images: coarse and fine label [N], pixels [N, 32, 32, 3], what each is called; names of labels."""

    coarse: npt.NDArray[Any]
    fine: npt.NDArray[Any]
    pixels: cifar_files.Pixels
    called: list[str]
    coarse_names: tuple[str, ...]
    fine_names: tuple[str, ...]

    def rows(self) -> dict[str, int]:
        """The row of each image by what it is called."""
        return {file: row for row, file in enumerate(self.called)}


def check_records(files: SourceFiles) -> None:
    """Checks the number of records of both files.

    Raises:
        SourceError: naming the file that has too few or too many.
    """
    cifar_files.check_records(files, dict(zip(FILES, IMAGES)), 2)


def read(files: SourceFiles) -> Records:
    """Reads all records.

    Raises:
        SourceError: if a file is missing, a text has not the published number of names, or a label no name.
    """
    names = {}
    for file, expected in ((_COARSE, COARSE_CLASSES), (_FINE, CLASSES)):
        names[file] = cifar_files.read_names(files, file)
        if len(names[file]) != expected:
            raise SourceError(f"{file} has {len(names[file])} names; expected {expected}")
    labels, pixels, called = cifar_files.read_records(files, FILES, 2)
    if len(labels) and (labels[:, 0].max() >= COARSE_CLASSES or labels[:, 1].max() >= CLASSES):
        raise SourceError(f"{' and '.join(FILES)} have labels without a name")
    return Records(labels[:, 0], labels[:, 1], pixels, called, names[_COARSE], names[_FINE])
