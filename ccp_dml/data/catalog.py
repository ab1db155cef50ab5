"""The data sets by name. Listing and checking them imports neither TensorFlow nor TFDS."""

from __future__ import annotations

import contextlib
import functools
import importlib
import os
import pathlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import Any

from ccp_dml.data.collection import ImageCollection, ImageDataset
from ccp_dml.data.options import SourceOptions
from ccp_dml.data.prepared import default_prepared_dir, load_prepared, prepare
from ccp_dml.errors import UserError, as_user_errors
from ccp_dml.files import preparation_lock

__all__ = ["check", "is_published", "load", "names"]


# What the builders themselves do not say without TensorFlow.
_EMOJI_CLASSES = 322
_FASHION_MNIST_CLASSES = 10


def _emoji(source: SourceOptions) -> int:
    """The training classes of the built-in data set, which is always there."""
    del source
    return _EMOJI_CLASSES


def _fashion_mnist(source: SourceOptions) -> int:
    """The training classes of Fashion-MNIST, whose four files must be there."""
    with as_user_errors():
        importlib.import_module("datasets.fashion_mnist.source").find(source.data_dir)
    return _FASHION_MNIST_CLASSES


def _image_folder(source: SourceOptions) -> int:
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


def _find_published(source: SourceOptions, folder: str, variant: str) -> int:
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
        raise UserError(f"--dataset={source.dataset} needs {needs}: {release.advice('--data_dir')}")
    try:
        files = release.find(source.data_dir)
        return num_classes if source.check_counts else release.listing(files).sizes()["train"].classes
    except (ValueError, OSError) as error:
        raise UserError(f"--dataset={source.dataset} --data_dir={source.data_dir}: {error}") from error


def release_of(folder: str, variant: str) -> Any:
    """The `Release` of that variant among those in a folder of `datasets`."""
    releases = importlib.import_module(f"datasets.{folder}.release").RELEASES
    return next(release for release in releases if release.variant == variant)


def _is_prepared(release: Any, source: SourceOptions) -> bool:
    top = pathlib.Path(source.prepared_dir or default_prepared_dir()).expanduser()
    # TFDS gives the folder its name when all is written.
    return (top / release.name / release.variant / release.VERSION).is_dir()


@dataclass(frozen=True)
class Entry:
    """A data set.

    Attributes:
        folder: the folder of its builder in `datasets`.
        find: finds its source, or raises `UserError`; returns the number of training classes.
        options: the fields of `SourceOptions` that its builder takes.
        variant: the TFDS configuration of its builder, a variant of the classes; None: it is not one of the
            published data sets, which alone have some.
    """

    folder: str
    find: Callable[[SourceOptions], int]
    options: tuple[str, ...] = ()
    variant: str | None = None

    @property
    def release(self) -> Any:
        """What is published, a `Release` of `datasets`; None if it is not one of the published data sets."""
        return None if self.variant is None else release_of(self.folder, self.variant)

    def builder_options(self, source: SourceOptions) -> dict[str, Any]:
        """The arguments of the builder that `source` gives."""
        names = {"data_dir": "source_dir"}  # To a builder, data_dir is where prepared data go.
        options = {names.get(name, name): getattr(source, name) for name in self.options}
        return options if self.variant is None else {"config": self.variant, **options}


def names() -> tuple[str, ...]:
    """Names that `--dataset` accepts."""
    return tuple(ENTRIES)


def is_published(name: str) -> bool:
    """Whether it is one of the published data sets, whose numbers of classes and images can be checked."""
    return name in ENTRIES and ENTRIES[name].variant is not None


def _published(folder: str, variant: str = "zero_shot") -> Entry:
    find = functools.partial(_find_published, folder=folder, variant=variant)
    return Entry(folder, find, ("data_dir", "check_counts", "skip_bad_images"), variant)


ENTRIES = {
    "emoji": Entry("emoji", _emoji),
    "image_folder": Entry("image_folder", _image_folder, ("data_dir", "train_fraction", "skip_bad_images")),
    "fashion_mnist": Entry("fashion_mnist", _fashion_mnist, ("data_dir",)),
    "cub": _published("cub"),
    "cars196": _published("cars196"),
    "sop": _published("sop"),
    "inshop": _published("inshop"),
    "cifar10": _published("cifar10"),
    "cifar10_closed": _published("cifar10", "closed"),
    "cifar100": _published("cifar100"),
    "cifar100_closed": _published("cifar100", "closed"),
    "cifar100_collage": _published("cifar100", "collage"),
    "imagenet": _published("imagenet"),
    "mini_imagenet": _published("mini_imagenet"),
}


def check(source: SourceOptions) -> int:
    """Finds out, without TensorFlow, whether `load` has what it needs.

    Returns:
        The number of training classes, those held out for validation included.

    Raises:
        UserError: if the name is unknown, an option is not for this data set, or the source is missing or has
            not the layout expected; the message says what to get and where to put it.
    """
    if source.dataset not in ENTRIES:
        raise UserError(f"--dataset={source.dataset} is unknown, expected one of: {', '.join(names())}")
    entry = ENTRIES[source.dataset]
    _check_options(source, entry)
    return entry.find(source)


def _check_options(source: SourceOptions, entry: Entry) -> None:
    """Every option is for this data set."""
    name = source.dataset
    if source.crop_to_box and not _has_boxes(entry):
        raise UserError(
            f"--crop_to_box: {name} has no bounding boxes; expected it with one of {_names_of(_has_boxes)}"
        )
    if not source.check_counts and "check_counts" not in entry.options:
        raise UserError(
            f"--check_counts=false: expected it with a published data set; found --dataset={name}"
        )
    if source.skip_bad_images and "skip_bad_images" not in entry.options:
        raise UserError(
            "--skip_bad_images: expected it with image_folder or a published data set; "
            f"found --dataset={name}"
        )
    if source.download and not _is_public(entry):
        advice = "" if entry.release is None else f"; {entry.release.advice('--data_dir')}"
        raise UserError(
            f"--download: {name} cannot be downloaded; expected it with one of "
            f"{_names_of(_is_public)}{advice}"
        )


def _has_boxes(entry: Entry) -> bool:
    return entry.release is not None and entry.release.has_boxes


def _is_public(entry: Entry) -> bool:
    """Whether the source may be downloaded without asking anybody."""
    return entry.release is not None and entry.release.download_url is not None


def _names_of(kind: Callable[[Entry], bool]) -> str:
    return ", ".join(name for name, entry in ENTRIES.items() if kind(entry))


def load(source: SourceOptions) -> ImageDataset:
    """Opens a data set, preparing it (once) if need be.

    Returns:
        Collections of the training and the test images. Their classes are disjoint, unless a manifest or the
        name of the data set says otherwise.

    Raises:
        UserError: see `check`; also if an image cannot be read, a data set has not its published numbers of
            classes and images, or prepared data cannot be written.
    """
    check(source)
    entry = ENTRIES[source.dataset]
    prepared_dir = source.prepared_dir or default_prepared_dir()
    builder_class = importlib.import_module(f"datasets.{entry.folder}.{entry.folder}_dataset_builder").Builder
    with as_user_errors(), preparation_lock(prepared_dir, entry.folder), _explained(source, prepared_dir):
        # The builder looks for prepared data when it is made, so that is inside the lock too.
        builder = builder_class(
            file_format="array_record", data_dir=prepared_dir, **entry.builder_options(source)
        )
        if source.prepared_shorter_side is not None:
            copying = importlib.import_module("datasets.common.smaller_copy")
            prepare(source.dataset, builder)
            builder = copying.smaller_copy(builder, source.prepared_shorter_side)
        dataset = load_prepared(source.dataset, builder)
    with_boxes = functools.partial(_check_boxes, source.dataset)
    return dataset.map(with_boxes if source.crop_to_box else _without_boxes)


@contextlib.contextmanager
def _explained(source: SourceOptions, prepared_dir: str) -> Iterator[None]:
    """Turns the errors of preparing and opening into such as say what to do."""
    from google.protobuf import json_format

    images = importlib.import_module("datasets.common.images")
    try:
        yield
    except images.ImageError as error:
        hint = "" if source.skip_bad_images else "; --skip_bad_images leaves them out"
        raise UserError(f"{error}{hint}") from error
    except json_format.ParseError as error:
        raise UserError(
            f"--prepared_dir={prepared_dir}: the description of {source.dataset} is damaged ({error}); "
            f"delete its folder {ENTRIES[source.dataset].folder} there, and it is prepared again"
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
