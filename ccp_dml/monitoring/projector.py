"""Embeddings of images in TensorBoard's projector."""

from __future__ import annotations

import math
import os
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import tensorflow as tf
from PIL import Image
from tensorboard.plugins import projector

from ccp_dml.monitoring.panels import WHITE, fitted

_FOLDER = "projector"
# Longest side of a sheet of sprites that the projector accepts, in pixels.
_LARGEST_SHEET = 8192


def write_projector(
    directory: str,
    embeddings: npt.NDArray[np.floating[Any]],
    metadata: Mapping[str, Sequence[object]],
    images: Sequence[npt.NDArray[np.uint8]],
    image_size: int = 48,
) -> None:
    """Writes embeddings, their labels and pictures, and the configuration of the projector.

    The files are in `directory`/projector, with names relative to `directory`, so that a run can be moved.
    TensorBoard finds them if it watches `directory`, or if that has an event file of its own. The embeddings
    are text: the alternative, a checkpoint, can only have an absolute path.

    Args:
        directory: TensorBoard directory of the run.
        embeddings: [N, D], in the space in which neighbours are searched; N ≥ 1.
        metadata: column → N values, such as the class and the image id; the first column is the label.
        images: pictures of the N points, uint8 RGB [H, W, 3], of any size.
        image_size: side of the pictures in the projector, in pixels.

    Raises:
        ValueError: if lengths differ, there is nothing to show, or the sheet of pictures is too large.
    """
    _check(embeddings, metadata, images)
    sprites = tf.io.encode_png(sprite_sheet(images, image_size)).numpy()
    tf.io.gfile.makedirs(os.path.join(directory, _FOLDER))

    config = projector.ProjectorConfig()
    entry = config.embeddings.add()
    entry.tensor_name = "embeddings"
    rows = ("\t".join(f"{value:.6g}" for value in row) for row in embeddings)
    entry.tensor_path = _write_text(directory, "embeddings.tsv", rows)
    entry.tensor_shape.extend(embeddings.shape)
    entry.metadata_path = _write_text(directory, "embeddings_metadata.tsv", _metadata_lines(metadata))
    entry.sprite.image_path = _write(directory, "embeddings_sprites.png", sprites)
    entry.sprite.single_image_dim.extend([image_size, image_size])
    projector.visualize_embeddings(directory, config)


def sprite_sheet(images: Sequence[npt.NDArray[np.uint8]], size: int = 48) -> npt.NDArray[np.uint8]:
    """Lays images out in a square grid, row by row.

    Args:
        images: at least one, uint8 RGB [H, W, 3]; each is fitted into its cell on white.
        size: side of a cell in pixels.

    Returns:
        uint8 RGB [n * size, n * size, 3] with n = ceil(sqrt(number of images)); spare cells are white.

    Raises:
        ValueError: if there is no image, an image is not uint8 RGB, or the sheet would be too large.
    """
    if not len(images):
        raise ValueError("a sprite sheet needs at least one image")
    side = math.isqrt(len(images) - 1) + 1
    if side * size > _LARGEST_SHEET:
        raise ValueError(
            f"{len(images)} images of {size} pixels make a sheet of {side * size} pixels a side; "
            f"at most {_LARGEST_SHEET}"
        )
    sheet = Image.new("RGB", (side * size, side * size), WHITE)
    for place, image in enumerate(images):
        sheet.paste(fitted(image, size), (place % side * size, place // side * size))
    return np.array(sheet)


def _check(
    embeddings: npt.NDArray[np.floating[Any]],
    metadata: Mapping[str, Sequence[object]],
    images: Sequence[npt.NDArray[np.uint8]],
) -> None:
    if embeddings.ndim != 2 or len(embeddings) == 0:
        raise ValueError(f"embeddings have shape {embeddings.shape}; expected [N, D] with N of at least 1")
    if not metadata:
        raise ValueError("metadata has no column; expected at least one, for instance the classes")
    for column, values in metadata.items():
        if len(values) != len(embeddings):
            raise ValueError(
                f"metadata column {column!r} has {len(values)} values for {len(embeddings)} points"
            )
    if len(images) != len(embeddings):
        raise ValueError(f"there are {len(images)} images for {len(embeddings)} points")


def _metadata_lines(metadata: Mapping[str, Sequence[object]]) -> list[str]:
    """One line per point; the projector expects a header if there are several columns."""
    rows = [[" ".join(str(value).split()) for value in values] for values in zip(*metadata.values())]
    header = [list(metadata)] if len(metadata) > 1 else []
    return ["\t".join(row) for row in header + rows]


def _write_text(directory: str, file: str, lines: Iterable[str]) -> str:
    return _write(directory, file, ("\n".join(lines) + "\n").encode())


def _write(directory: str, file: str, content: bytes) -> str:
    """Writes a file and returns its name relative to `directory`."""
    path = os.path.join(_FOLDER, file)
    with tf.io.gfile.GFile(os.path.join(directory, path), "wb") as handle:
        handle.write(content)
    return path
