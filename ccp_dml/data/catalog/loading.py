"""Opening a data set, which is prepared once."""

from __future__ import annotations

import contextlib
import functools
import importlib
from collections.abc import Iterator
from dataclasses import replace

from ccp_dml.data.catalog.checking import check
from ccp_dml.data.catalog.entries import ENTRIES
from ccp_dml.data.catalog.source import Source
from ccp_dml.data.image_collection import ImageCollection, ImageDataset
from ccp_dml.data.preparation_lock import preparation_lock
from ccp_dml.data.prepared import default_prepared_dir, load_prepared, prepare
from ccp_dml.errors import UserError, as_user_errors


def load(source: Source) -> ImageDataset:
    """Opens a data set, preparing it (once) if need be.

    Returns:
        Collections of the training and the test images. Their classes are disjoint, unless a manifest or the
        name of the data set says otherwise.

    Raises:
        UserError: see `check`; also if an image cannot be read, a data set has not its published numbers of
            classes and images, or prepared data cannot be written.
    """
    check(source)
    entry = ENTRIES[source.name]
    prepared_dir = source.prepared_dir or default_prepared_dir()
    builder_class = importlib.import_module(f"datasets.{entry.folder}.{entry.folder}_dataset_builder").Builder
    with as_user_errors(), preparation_lock(prepared_dir, entry.folder), _explained(source, prepared_dir):
        # The builder looks for prepared data when it is made, so that is inside the lock too.
        builder = builder_class(
            file_format="array_record", data_dir=prepared_dir, **entry.builder_options(source)
        )
        if source.prepared_shorter_side is not None:
            copying = importlib.import_module("datasets.smaller_copy")
            prepare(source.name, builder)
            builder = copying.smaller_copy(builder, source.prepared_shorter_side)
        dataset = load_prepared(source.name, builder)
    with_boxes = functools.partial(_check_boxes, source.name)
    return dataset.map(with_boxes if source.crop_to_box else _without_boxes)


@contextlib.contextmanager
def _explained(source: Source, prepared_dir: str) -> Iterator[None]:
    """Turns the errors of preparing and opening into such as say what to do."""
    from google.protobuf import json_format

    images = importlib.import_module("datasets.images")
    try:
        yield
    except images.ImageError as error:
        hint = "" if source.skip_bad_images else "; --skip_bad_images leaves them out"
        raise UserError(f"{error}{hint}") from error
    except json_format.ParseError as error:
        raise UserError(
            f"--prepared_dir={prepared_dir}: the description of {source.name} is damaged ({error}); "
            f"delete its folder {ENTRIES[source.name].folder} there, and it is prepared again"
        ) from error
    except OSError as error:  # Errors of source images are told apart and name the image.
        raise UserError(f"--prepared_dir={prepared_dir}: cannot be used: {error.strerror}") from error


def _without_boxes(part: ImageCollection) -> ImageCollection:
    return replace(part, boxes=None)


def _check_boxes(name: str, part: ImageCollection) -> ImageCollection:
    """The collection, of whose images every one has a box that is for it."""
    unknown = 0 if part.boxes is None else int((part.boxes[:, 2] == 0).sum())
    if unknown:
        raise UserError(
            f"--crop_to_box: {unknown:,} images of {name} have another size than the one that "
            "their bounding boxes are for; expected the images as published"
        )
    return part
