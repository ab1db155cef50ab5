"""The data sets by name. Listing and checking them imports neither TensorFlow nor TFDS."""

from __future__ import annotations

import importlib
import os
from typing import Any

from ccp_dml.data.image_collection import ImageDataset
from ccp_dml.data.preparation_lock import preparation_lock
from ccp_dml.errors import UserError, as_user_errors

_BUILDERS = {
    "emoji": "datasets.emoji.emoji_dataset_builder:Builder",
    "image_folder": "datasets.image_folder.image_folder_dataset_builder:Builder",
    "fashion_mnist": "datasets.fashion_mnist.fashion_mnist_dataset_builder:Builder",
}
# What the builders themselves do not say without TensorFlow.
_NUM_TRAIN_CLASSES = {"emoji": 322, "fashion_mnist": 10}
# Without a builder so far, with the official files that it will read.
_PLANNED = {
    "cub": "CUB_200_2011.tgz",
    "cars196": "cars_annos.mat and the folder car_ims/",
    "sop": "Stanford_Online_Products/ (with Ebay_train.txt and Ebay_test.txt)",
    "inshop": "list_eval_partition.txt and the folder img/",
}


def names() -> tuple[str, ...]:
    """Names that `--dataset` accepts, those of planned data sets included."""
    return (*_BUILDERS, *_PLANNED)


def check(name: str, data_dir: str | None = None, *, train_fraction: float = 0.5) -> int:
    """Finds out, without TensorFlow, whether `load` has what it needs.

    Args:
        name: one of `names()`.
        data_dir: folder with the source images; `image_folder` needs it, `emoji` does not, and
            `fashion_mnist` looks where the Debian package puts them if it is not given.
        train_fraction: share of the classes of an `image_folder` without manifest that is trained on.

    Returns:
        The number of training classes, those held out for validation included.

    Raises:
        UserError: if the name is unknown, the data set's builder is not built yet, or the folder is missing
            or has not the layout expected; the message says what to get and where to put it.
    """
    if name in _PLANNED:
        raise UserError(
            f"--dataset={name}: the builder of this data set is not built yet; it will read {_PLANNED[name]} "
            f"in the folder --data_dir (found --data_dir={data_dir or ''}). Its images can be used today "
            "with --dataset=image_folder and a manifest.csv (columns file,label,split) in --data_dir"
        )
    if name not in _BUILDERS:
        raise UserError(f"--dataset={name} is unknown, expected one of: {', '.join(names())}")
    if name == "fashion_mnist":
        with as_user_errors():
            importlib.import_module("datasets.fashion_mnist.source").find(data_dir)
    if name != "image_folder":
        return _NUM_TRAIN_CLASSES[name]
    if not data_dir:
        raise UserError("--dataset=image_folder needs --data_dir, the folder with the images; none was given")
    if not os.path.isdir(os.path.expanduser(data_dir)):
        raise UserError(f"--data_dir={data_dir} is not a folder; expected the folder with the images")
    with as_user_errors():
        layout = importlib.import_module("datasets.image_folder.layout")
        entries = layout.read_layout(data_dir, train_fraction).splits["train"]
    return len({entry.label for entry in entries})


def load(
    name: str,
    *,
    data_dir: str | None = None,
    prepared_dir: str | None = None,
    train_fraction: float = 0.5,
) -> ImageDataset:
    """Opens a data set, preparing it (once) if need be.

    Args:
        name: one of `names()`.
        data_dir: folder with the source images, see `check`.
        prepared_dir: where prepared data is kept; default `TFDS_DATA_DIR`, else a folder in the user's cache.
        train_fraction: see `check`.

    Returns:
        Collections of the training and the test images. Their classes are disjoint, but those of
        `fashion_mnist` are the same, and a manifest may say otherwise.

    Raises:
        UserError: see `check`; also if an image cannot be read or prepared data cannot be written.
    """
    check(name, data_dir, train_fraction=train_fraction)
    from ccp_dml.data import prepared

    module, class_name = _BUILDERS[name].split(":")
    prepared_dir = prepared_dir or prepared.default_prepared_dir()
    options: dict[str, Any] = {"data_dir": prepared_dir}
    if name == "fashion_mnist":
        options |= {"source_dir": data_dir}
    if name == "image_folder":
        options |= {"source_dir": data_dir, "train_fraction": train_fraction}
    builder_class = getattr(importlib.import_module(module), class_name)
    with as_user_errors(), preparation_lock(prepared_dir, name):
        try:
            # The builder looks for prepared data when it is made, so that is inside the lock too.
            return prepared.load_prepared(name, builder_class(file_format="array_record", **options))
        except OSError as error:  # Errors of source images are told apart and name the image.
            raise UserError(f"--prepared_dir={prepared_dir}: cannot be used: {error.strerror}") from error
