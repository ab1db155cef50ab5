"""Embeddings of images for TensorBoard's projector."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import tensorflow as tf
from tensorboard.plugins import projector

from ccp_dml.monitoring.panels import sprite_sheet

_FOLDER = "projector"


def write_projector(
    directory: str,
    embeddings: npt.NDArray[np.floating[Any]],
    metadata: Mapping[str, Sequence[object]],
    images: Sequence[npt.NDArray[np.uint8]] | None = None,
    *,
    image_size: int = 48,
    name: str = "embeddings",
) -> None:
    """Writes embeddings, their labels and pictures, and the projector's configuration.

    The files lie in `directory`/projector and are named relative to `directory`, so that a run can be moved.
    TensorBoard finds them if `directory` is what it watches or holds an event file of its own. The embeddings
    are text: a checkpoint, the other choice, can only be named by its absolute path.

    Args:
        directory: TensorBoard directory of the run.
        embeddings: [N, D], in the space in which neighbours are searched; N ≥ 1.
        metadata: column → N values, for instance the class and the image id; the first is shown as label.
        images: pictures of the N points, uint8 RGB [H, W, 3], of any size.
        image_size: side of the pictures in the projector, in pixels; a sheet of all may have 8192 a side.
        name: what the projector calls the embeddings.

    Raises:
        ValueError: if lengths differ, there is nothing to show, or the pictures cannot be laid out.
    """
    _check(embeddings, metadata, images)
    sprites = None if images is None else tf.io.encode_png(sprite_sheet(images, image_size)).numpy()
    tf.io.gfile.makedirs(os.path.join(directory, _FOLDER))

    config = projector.ProjectorConfig()
    entry = config.embeddings.add()
    entry.tensor_name = name
    rows = ("\t".join(f"{value:.6g}" for value in row) for row in embeddings)
    entry.tensor_path = _write_text(directory, f"{name}.tsv", rows)
    entry.tensor_shape.extend(embeddings.shape)
    entry.metadata_path = _write_text(directory, f"{name}_metadata.tsv", _metadata_lines(metadata))
    if sprites is not None:
        entry.sprite.image_path = _write(directory, f"{name}_sprites.png", sprites)
        entry.sprite.single_image_dim.extend([image_size, image_size])
    projector.visualize_embeddings(directory, config)


def _check(
    embeddings: npt.NDArray[np.floating[Any]],
    metadata: Mapping[str, Sequence[object]],
    images: Sequence[npt.NDArray[np.uint8]] | None,
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
    if images is not None and len(images) != len(embeddings):
        raise ValueError(f"there are {len(images)} images for {len(embeddings)} points")


def _metadata_lines(metadata: Mapping[str, Sequence[object]]) -> list[str]:
    """One line per point; a header if there is more than one column, as the projector wants it."""
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
