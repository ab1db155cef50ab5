"""Where the files of Fashion-MNIST are and what is in them; needs no TensorFlow."""

from __future__ import annotations

import os
import pathlib

import numpy as np
import numpy.typing as npt

from datasets.fashion_mnist import idx

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


class SourceError(ValueError):
    """Files are missing or do not belong together; the message says what to get and where to put it."""


def find(data_dir: str | os.PathLike[str] | None = None) -> pathlib.Path:
    """Returns the folder with the four files.

    Args:
        data_dir: the folder; None or "" for the one of the Debian package.

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
        folder: of `find`.
        split: `"train"` (60,000 images) or `"test"` (10,000).

    Returns:
        Images uint8 [N, 28, 28], 0 the ground and 255 the brightest, and labels uint8 [N], 0..9.

    Raises:
        IdxError: if a file is damaged.
        SourceError: if the files do not belong together.
    """
    image_file, label_file = (folder / file for file in _FILES[split])
    images, labels = idx.read(image_file, 3), idx.read(label_file, 1)
    if images.shape != (len(labels), SIDE, SIDE):
        raise SourceError(
            f"{image_file} holds {' x '.join(str(size) for size in images.shape)} numbers; "
            f"expected {len(labels)} x {SIDE} x {SIDE}, an image for every label of {label_file.name}"
        )
    if len(labels) and labels.max() >= len(CLASS_NAMES):
        raise SourceError(f"{label_file}: has the label {labels.max()}; expected 0 to {len(CLASS_NAMES) - 1}")
    return images, labels
