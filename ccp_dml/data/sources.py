"""Sources of labelled images for Python: arrays, files, tables and folders."""

from __future__ import annotations

import io
import os
from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image

from ccp_dml.data.catalog import read_folder, upright_images
from ccp_dml.data.collection import ImageCollection, RecordSource

_MOST_NAMED = 5


class PixelRecords:
    """Random access to images that are given as pixels, or to any other inputs of a model.

    Args:
        images: an array [N, ...], or an object with `__len__` whose `__getitem__` returns an array.
    """

    def __init__(self, images: Any) -> None:
        self._images = images

    def __len__(self) -> int:
        return len(self._images)

    def pixels(self, rows: Sequence[int]) -> npt.NDArray[Any]:
        """Returns the images of the given records as they are, [n, ...]."""
        if isinstance(self._images, np.ndarray):
            return self._images[np.asarray(rows, np.int64)]
        return np.stack([np.asarray(self._images[int(row)]) for row in rows])

    def encoded(self, rows: Sequence[int]) -> list[bytes]:
        """Returns the images of the given records as PNG, which loses nothing.

        Raises:
            ValueError: unless the images are uint8 [H, W], [H, W, 1] or [H, W, 3].
        """
        return [_as_png(np.asarray(self._images[int(row)])) for row in rows]


class FileRecords:
    """Random access to image files, converted as in the preparation of data sets.

    Args:
        paths: a JPEG, PNG, BMP, GIF or WebP file for each record.
    """

    def __init__(self, paths: Sequence[str]) -> None:
        self._paths = list(paths)

    def __len__(self) -> int:
        return len(self._paths)

    def encoded(self, rows: Sequence[int]) -> list[bytes]:
        """Returns the upright RGB images of the given records; raises `ValueError` naming a bad file."""
        return upright_images([self._paths[row] for row in rows])


def from_arrays(images: Any, labels: npt.ArrayLike) -> ImageCollection:
    """Makes a source of inputs that are in memory, or that an object returns by index.

    Args:
        images: an array [N, ...], or any object with `__len__` whose `__getitem__` returns an array, such as
            a memory map. Any dtype and shape that the model takes; to augment them, uint8 [H, W, 3].
        labels: integers or strings [N].

    Returns:
        The source. Its classes are the distinct labels in ascending order; `class_names` keeps them as text.

    Raises:
        ValueError: if there are no images, or another number of labels.

    Example:
        >>> source = from_arrays(np.zeros([4, 8, 8, 1]), ["dog", "cat", "dog", "cat"])
        >>> source.labels.tolist(), source.class_names
        ([1, 0, 1, 0], ('cat', 'dog'))
    """
    return _collection(PixelRecords(images), labels, "images")


def from_files(paths: Sequence[str | os.PathLike[str]], labels: npt.ArrayLike) -> ImageCollection:
    """Makes a source of image files, which are read when they are needed.

    Args:
        paths: JPEG, PNG, BMP, GIF or WebP files.
        labels: integers or strings [N]; see `from_arrays`.

    Raises:
        FileNotFoundError: if files are missing; the message names the first ones.
        ValueError: if there are no files, or another number of labels.

    Example:
        >>> from_files([photos / "cat/a.png", photos / "dog/a.png"], ["cat", "dog"]).class_names
        ('cat', 'dog')
    """
    files = [os.path.expanduser(os.fspath(path)) for path in paths]
    collection = _collection(FileRecords(files), labels, "paths")
    missing = [file for file in files if not os.path.isfile(file)]
    if missing:
        more = f" and {len(missing) - _MOST_NAMED:,} more" if len(missing) > _MOST_NAMED else ""
        raise FileNotFoundError(
            f"{len(missing):,} of {len(files):,} image files do not exist: "
            f"{', '.join(missing[:_MOST_NAMED])}{more}"
        )
    return collection


def from_dataframe(
    frame: Any, path_column: str, label_column: str, root: str | os.PathLike[str] | None = None
) -> ImageCollection:
    """Makes a source of the image files that a table lists.

    Args:
        frame: a pandas DataFrame, or anything else whose columns are found by name, such as a dict of lists.
        path_column: name of the column of paths.
        label_column: name of the column of labels, integers or strings.
        root: folder that the paths are relative to; None for the working directory.

    Raises:
        KeyError: if a column is missing.
        FileNotFoundError: if files are missing; the message names the first ones.
        ValueError: if there are no rows, or the columns differ in length.

    Example:
        >>> table = {"file": ["cat/a.png", "dog/a.png"], "name": ["cat", "dog"]}
        >>> len(from_dataframe(table, "file", "name", root=photos))
        2
    """
    for name in (path_column, label_column):
        if name not in frame:
            raise KeyError(f"the table has no column {name!r}; expected one of {', '.join(map(str, frame))}")
    folder = "" if root is None else os.fspath(root)
    paths = [os.path.join(folder, os.fspath(path)) for path in frame[path_column]]
    return from_files(paths, list(frame[label_column]))


def from_folder(folder: str | os.PathLike[str], split: str | None = None) -> ImageCollection:
    """Makes a source of a folder with one folder per class, or with a `manifest.csv`.

    The rules are those of the data set `image_folder` of the training command.

    Args:
        folder: the folder.
        split: "train", "test", "query" or "gallery" for the images of a split: those of the manifest, or
            without one the first half of the sorted classes for "train" and the others for "test". None for
            all images.

    Raises:
        ValueError: if the folder cannot be used, or has no images of the split.

    Example:
        >>> source = from_folder(photos, split="train")
        >>> source.class_names
        ('cat', 'cow')
    """
    found = [(path, label) for path, label, of in read_folder(folder) if split in (None, of)]
    if not found:
        raise ValueError(f"{os.fspath(folder)} has no images of the split {split!r}; expected train or test")
    paths, labels = zip(*found)
    return from_files(paths, labels)


def _collection(records: RecordSource, labels: npt.ArrayLike, name: str) -> ImageCollection:
    given = np.asarray(labels)
    if given.ndim != 1 or len(given) != len(records):
        raise ValueError(
            f"labels have the shape {given.shape}; expected ({len(records)},), one for each of the {name}"
        )
    if not len(given):
        raise ValueError(f"{name} are empty; expected at least one image")
    if not (np.issubdtype(given.dtype, np.integer) or given.dtype.kind in "US" or _all_text(given)):
        raise ValueError(f"labels have the dtype {given.dtype}; expected integers or strings")
    names, numbers = np.unique(given.astype(str) if given.dtype.kind == "O" else given, return_inverse=True)
    rows = np.arange(len(records))
    return ImageCollection(numbers, tuple(str(name) for name in names), rows, records, rows)


def _all_text(labels: npt.NDArray[Any]) -> bool:
    return labels.dtype.kind == "O" and all(isinstance(label, str) for label in labels)


def _as_png(pixels: npt.NDArray[Any]) -> bytes:
    shape = pixels.shape[:2] if pixels.shape[2:] == (1,) else pixels.shape
    if pixels.dtype != np.uint8 or not (len(shape) == 2 or shape[2:] == (3,)):
        raise ValueError(
            f"an image is {pixels.dtype} {list(pixels.shape)}; to be resized and augmented, expected uint8 "
            "[H, W], [H, W, 1] or [H, W, 3]"
        )
    output = io.BytesIO()
    Image.fromarray(pixels.reshape(shape)).convert("RGB").save(output, "png", compress_level=1)
    return output.getvalue()
