"""The binary version of CIFAR: records of the labels and the 32 x 32 pixels of an image."""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image

from ccp_dml.datasets.common.source_files import SourceError, SourceFiles

SIDE = 32
Pixels = npt.NDArray[np.uint8]


def read_records(
    files: SourceFiles, names: Sequence[str], num_labels: int
) -> tuple[npt.NDArray[Any], Pixels, list[str]]:
    """Reads the records of several files, in order.

    Args:
        files: the files of the data set.
        names: names of the files to read.
        num_labels: number of labels, of one byte each, at the beginning of a record.

    Returns:
        Labels, uint8 [N, num_labels]; pixels, uint8 RGB [N, 32, 32, 3]; and the name of each image.

    Raises:
        SourceError: if a file is missing, or ends inside a record.
    """
    length = _record_length(num_labels)
    contents = files.read(names)
    records, image_names = [], []
    for name in names:
        content = contents[name]
        if len(content) % length:
            raise SourceError(f"{name} has {len(content):,} bytes; expected a multiple of {length}")
        records.append(np.frombuffer(content, np.uint8).reshape(-1, length))
        image_names += [f"{name}#{number}" for number in range(len(records[-1]))]
    everything = np.concatenate(records)
    planes = everything[:, num_labels:].reshape(-1, 3, SIDE, SIDE)
    return everything[:, :num_labels], planes.transpose(0, 2, 3, 1), image_names


def check_records(files: SourceFiles, expected: Mapping[str, int], num_labels: int) -> None:
    """Checks the number of records of several files.

    Args:
        files: the files of the data set.
        expected: number of records by name of the file.
        num_labels: number of labels at the beginning of a record.

    Raises:
        SourceError: if a file has too few or too many records; the message names it.
    """
    for name, content in files.read(list(expected)).items():
        found = len(content) // _record_length(num_labels)
        if found != expected[name]:
            raise SourceError(f"{name} has {found:,} images; expected {expected[name]:,}")


def read_names(files: SourceFiles, name: str) -> tuple[str, ...]:
    """Returns the names of the classes that a text lists, one per line."""
    return tuple(line.strip() for line in files.read([name])[name].decode().splitlines() if line.strip())


def image_file(pixels: Pixels) -> bytes:
    """Returns uint8 RGB pixels [H, W, 3] as an uncompressed image file."""
    output = io.BytesIO()
    Image.fromarray(pixels).save(output, "bmp")
    return output.getvalue()


def _record_length(num_labels: int) -> int:
    return num_labels + 3 * SIDE * SIDE
