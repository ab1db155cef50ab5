"""Whether the source images of a data set are there, and how many of its classes train, by kind of data set.

Every function raises `UserError` if the source is missing or has not the layout expected.
"""

from __future__ import annotations

import importlib
import os
import pathlib
from typing import Any

from ccp_dml.data.catalog.source import Source
from ccp_dml.data.prepared import default_prepared_dir
from ccp_dml.errors import UserError, as_user_errors

# What the builders themselves do not say without TensorFlow.
_EMOJI_CLASSES = 322
_FASHION_MNIST_CLASSES = 10


def emoji(source: Source) -> int:
    """The training classes of the built-in data set, which is always there."""
    del source
    return _EMOJI_CLASSES


def fashion_mnist(source: Source) -> int:
    """The training classes of Fashion-MNIST, whose four files must be there."""
    with as_user_errors():
        importlib.import_module("datasets.fashion_mnist.source").find(source.data_dir)
    return _FASHION_MNIST_CLASSES


def image_folder(source: Source) -> int:
    """The training classes of a user's folder."""
    data_dir = source.data_dir
    if not data_dir:
        raise UserError("--dataset=image_folder needs --data_dir, the folder with the images; none was given")
    if not os.path.isdir(os.path.expanduser(data_dir)):
        raise UserError(f"--data_dir={data_dir} is not a folder; expected the folder with the images")
    with as_user_errors():
        layout = importlib.import_module("datasets.image_folder.layout")
        entries = layout.read_layout(data_dir, source.train_fraction).splits["train"]
    return len({entry.label for entry in entries})


def published(source: Source, folder: str, variant: str) -> int:
    """The training classes of a published data set; one that need not be whole needs its source."""
    release = release_of(folder, variant)
    num_classes = release.sizes["train"].classes
    is_whole = source.check_counts and not source.skip_bad_images
    if is_whole and _is_prepared(release, source):
        return num_classes
    if not source.data_dir:
        if source.download and is_whole:
            return num_classes
        needs = "--data_dir or --download" if release.download_url and is_whole else "--data_dir"
        raise UserError(f"--dataset={source.name} needs {needs}: {release.advice('--data_dir')}")
    try:
        files = release.find(source.data_dir)
        return num_classes if source.check_counts else release.listing(files).sizes()["train"].classes
    except (ValueError, OSError) as error:
        raise UserError(f"--dataset={source.name} --data_dir={source.data_dir}: {error}") from error


def release_of(folder: str, variant: str) -> Any:
    """The `Release` of that variant among those in a folder of `datasets`."""
    releases = importlib.import_module(f"datasets.{folder}.release").RELEASES
    return next(release for release in releases if release.variant == variant)


def _is_prepared(release: Any, source: Source) -> bool:
    top = pathlib.Path(source.prepared_dir or default_prepared_dir()).expanduser()
    # TFDS gives the folder its name when all is written.
    return (top / release.name / release.variant / release.VERSION).is_dir()
