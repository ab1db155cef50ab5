"""The four files of Fashion-MNIST and their contents. Needs no TensorFlow."""

from __future__ import annotations

import gzip
import math
import os
import pathlib
import struct
import zlib

import numpy as np
import numpy.typing as npt

from ccp_dml.datasets.common.source_files import SourceError

Bytes = npt.NDArray[np.uint8]

# In the order of the labels 0 to 9.
CLASS_NAMES = (
    "T-shirt/top",
    "trouser",
    "pullover",
    "dress",
    "coat",
    "sandal",
    "shirt",
    "sneaker",
    "bag",
    "ankle boot",
)
DEFAULT_DIR = "/usr/share/datasets/fashion-mnist"
SIDE = 28

# Images and labels of each split.
_FILES = {
    "train": ("train-images-idx3-ubyte.gz", "train-labels-idx1-ubyte.gz"),
    "test": ("t10k-images-idx3-ubyte.gz", "t10k-labels-idx1-ubyte.gz"),
}
_UNSIGNED_BYTE = 0x08
_MAGIC_SIZE = 4


def find(data_dir: str | os.PathLike[str] | None = None) -> pathlib.Path:
    """Returns the folder of the four files.

    Args:
        data_dir: the folder; None or "" for the folder of the Debian package.

    Raises:
        SourceError: if a file is missing.
    """
    folder = pathlib.Path(data_dir or DEFAULT_DIR).expanduser()
    missing = [file for files in _FILES.values() for file in files if not (folder / file).is_file()]
    if missing:
        raise SourceError(
            f"--data_dir={folder}: {', '.join(missing)} not found; expected the four files of Fashion-MNIST "
            f"(Debian: apt install dataset-fashion-mnist puts them into {DEFAULT_DIR}; "
            "official page: https://github.com/zalandoresearch/fashion-mnist)"
        )
    return folder


def read_split(folder: pathlib.Path, split: str) -> tuple[Bytes, Bytes]:
    """Reads the images and the labels of a split.

    Args:
        folder: the folder of the files.
        split: `"train"` (60,000 images) or `"test"` (10,000 images).

    Returns:
        Images, uint8 [N, 28, 28], in which 0 is the background; and labels, uint8 [N], 0..9.

    Raises:
        SourceError: if a file is damaged, or the files do not belong together.
    """
    image_file, label_file = (folder / file for file in _FILES[split])
    images, labels = read_idx(image_file, 3), read_idx(label_file, 1)
    if images.shape != (len(labels), SIDE, SIDE):
        raise SourceError(
            f"{image_file} holds {' x '.join(str(size) for size in images.shape)} numbers; "
            f"expected {len(labels)} x {SIDE} x {SIDE}, an image for every label of {label_file.name}"
        )
    if len(labels) and labels.max() >= len(CLASS_NAMES):
        raise SourceError(f"{label_file}: has the label {labels.max()}; expected 0 to {len(CLASS_NAMES) - 1}")
    return images, labels


def read_idx(path: pathlib.Path, dimensions: int) -> Bytes:
    """Reads a gzipped idx file of unsigned bytes.

    The format: two zero bytes, the code of the number type, the number of dimensions, the size of each
    dimension as a big-endian 32-bit integer, and the numbers with the last dimension varying fastest.

    Args:
        path: the file.
        dimensions: expected number of dimensions.

    Returns:
        uint8 array with that number of dimensions.

    Raises:
        SourceError: if the file is of another format or number of dimensions, or is truncated.
    """
    try:
        data = gzip.decompress(path.read_bytes())
    except (gzip.BadGzipFile, EOFError, zlib.error) as error:
        raise SourceError(f"{path}: not a gzip file, or a damaged one ({error})") from None
    header = _MAGIC_SIZE + 4 * dimensions
    expected = bytes((0, 0, _UNSIGNED_BYTE, dimensions))
    if len(data) < header or data[:_MAGIC_SIZE] != expected:
        raise SourceError(
            f"{path}: begins with {data[:_MAGIC_SIZE].hex(' ')}; expected {expected.hex(' ')}, "
            f"an idx file of unsigned bytes in {dimensions} dimensions"
        )
    shape = struct.unpack(f">{dimensions}I", data[_MAGIC_SIZE:header])
    if len(data) - header != math.prod(shape):
        raise SourceError(
            f"{path}: holds {len(data) - header} numbers; expected {math.prod(shape)} = "
            + " x ".join(str(size) for size in shape)
        )
    return np.frombuffer(data, np.uint8, offset=header).reshape(shape)
