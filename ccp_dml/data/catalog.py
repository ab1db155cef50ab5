"""The data sets by name. Listing and checking them imports neither TensorFlow nor TFDS."""

from __future__ import annotations

import contextlib
import functools
import importlib
import os
import pathlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from ccp_dml.commands import warn
from ccp_dml.data.collection import ImageCollection, ImageDataset
from ccp_dml.data.options import SourceOptions
from ccp_dml.data.prepared import default_prepared_dir, load_prepared, prepare, workspace
from ccp_dml.errors import UserError, as_user_errors
from ccp_dml.files import preparation_lock

__all__ = ["check", "has_source", "has_validation", "is_published", "load", "names"]

# The builders tell these numbers only with TensorFlow.
_EMOJI_CLASSES = 322
_FASHION_MNIST_CLASSES = 10


def names() -> tuple[str, ...]:
    """Returns the names of all data sets."""
    return tuple(_ENTRIES)


def is_published(name: str) -> bool:
    """Returns True for a published data set with known numbers of classes and images."""
    return name in _ENTRIES and _ENTRIES[name].variant is not None


def has_source(name: str) -> bool:
    """Returns True if a data set is read from a folder or an archive, its `data_dir`; or if it is unknown."""
    return name not in _ENTRIES or "data_dir" in _ENTRIES[name].options


def has_validation(source: SourceOptions) -> bool:
    """Returns True if a data set that was checked has validation images, as a manifest may have."""
    return source.dataset == "image_folder" and "validation" in _image_folder_splits(source)


def check(source: SourceOptions) -> int:
    """Checks, without TensorFlow, that `load` has what it needs.

    Returns:
        The number of training classes, including classes that are held out for validation.

    Raises:
        UserError: if the name is unknown, an option does not fit the data set, or the source is missing or
            has another layout; the message says what to get and where to put it.
    """
    if source.dataset not in _ENTRIES:
        raise UserError(f"--dataset={source.dataset} is unknown, expected one of: {', '.join(names())}")
    entry = _ENTRIES[source.dataset]
    _check_options(source, entry)
    return entry.find(source)


def load(source: SourceOptions) -> ImageDataset:
    """Opens a data set, after preparing it if necessary.

    Returns:
        Collections of the training and the test images. Their classes are disjoint, except for closed-set
        data sets and manifests.

    Raises:
        UserError: see `check`; or if an image cannot be read, the numbers of classes and images are not the
            published ones, or prepared data cannot be written.
    """
    check(source)
    entry = _ENTRIES[source.dataset]
    prepared_dir = source.prepared_dir or default_prepared_dir()
    module = importlib.import_module(f"ccp_dml.datasets.{entry.folder}.{entry.folder}_dataset_builder")
    with as_user_errors(), preparation_lock(prepared_dir, entry.folder), _explained(source, prepared_dir):
        working = workspace(prepared_dir, entry.folder)
        builder = module.Builder(
            file_format="array_record", data_dir=working, **entry.builder_options(source)
        )
        if passed_over := getattr(builder, "passed_over", None):
            warn(f"--data_dir={source.data_dir}: {passed_over}")
        if source.prepared_shorter_side is not None:
            original = prepare(source.dataset, builder, prepared_dir)
            copies = importlib.import_module("ccp_dml.datasets.common.smaller_copy")
            builder = copies.smaller_copy(*original, source.prepared_shorter_side, working)
        dataset = load_prepared(source.dataset, builder, prepared_dir)
    if not source.crop_to_box:
        return dataset.map(lambda images: replace(images, boxes=None))
    return dataset.map(functools.partial(_with_valid_boxes, source.dataset))


@dataclass(frozen=True)
class _Entry:
    """A data set.

    Attributes:
        folder: folder of the builder in `datasets`.
        find: returns the number of training classes, or raises `UserError` if the source is missing.
        options: fields of `SourceOptions` that the builder takes.
        variant: TFDS configuration of a published data set; None for other data sets.
    """

    folder: str
    find: Callable[[SourceOptions], int]
    options: tuple[str, ...] = ()
    variant: str | None = None

    @property
    def release(self) -> Any:
        """The `datasets.common.release.Release` of a published data set; None for other data sets."""
        return None if self.variant is None else _release(self.folder, self.variant)

    @property
    def has_boxes(self) -> bool:
        """True if the images come with bounding boxes."""
        return self.release is not None and self.release.has_boxes

    @property
    def is_public(self) -> bool:
        """True if the source can be downloaded without registration."""
        return self.release is not None and self.release.download_url is not None

    def builder_options(self, source: SourceOptions) -> dict[str, Any]:
        """Returns the arguments of the builder."""
        names = {"data_dir": "source_dir"}  # In TFDS, data_dir is the folder of prepared data.
        options = {names.get(name, name): getattr(source, name) for name in self.options}
        return options if self.variant is None else {"config": self.variant, **options}


def _release(folder: str, variant: str) -> Any:
    releases = importlib.import_module(f"ccp_dml.datasets.{folder}.release").RELEASES
    return next(release for release in releases if release.variant == variant)


def _find_emoji(source: SourceOptions) -> int:
    del source  # The built-in data set needs none.
    return _EMOJI_CLASSES


def _find_fashion_mnist(source: SourceOptions) -> int:
    with as_user_errors():
        importlib.import_module("ccp_dml.datasets.fashion_mnist.source").find(source.data_dir)
    return _FASHION_MNIST_CLASSES


def _find_image_folder(source: SourceOptions) -> int:
    data_dir = source.data_dir
    if not data_dir:
        raise UserError("--dataset=image_folder needs --data_dir, the folder with the images; none was given")
    if not os.path.isdir(os.path.expanduser(data_dir)):
        raise UserError(f"--data_dir={data_dir} is not a folder; expected the folder with the images")
    return len({entry.label for entry in _image_folder_splits(source).get("train", ())})


def _image_folder_splits(source: SourceOptions) -> Mapping[str, Sequence[Any]]:
    with as_user_errors():
        layout = importlib.import_module("ccp_dml.datasets.image_folder.layout")
        return layout.read_layout(source.data_dir, source.train_fraction, source.class_order_seed).splits


def _find_published(source: SourceOptions, folder: str, variant: str) -> int:
    """Returns the number of training classes; the source may be missing if the full set is prepared."""
    release = _release(folder, variant)
    num_classes = int(release.sizes["train"].classes)
    is_complete = source.check_counts and not source.skip_bad_images
    # TFDS renames the folder once all data is written.
    top = pathlib.Path(source.prepared_dir or default_prepared_dir()).expanduser()
    if is_complete and (top / release.name / release.variant / release.VERSION).is_dir():
        return num_classes
    if not source.data_dir:
        if source.download and is_complete:
            return num_classes
        needs = "--data_dir or --download" if release.download_url and is_complete else "--data_dir"
        raise UserError(f"--dataset={source.dataset} needs {needs}: {release.advice('--data_dir')}")
    try:
        files = release.find(source.data_dir)
        return num_classes if source.check_counts else release.listing(files).sizes()["train"].classes
    except (ValueError, OSError) as error:
        raise UserError(f"--dataset={source.dataset} --data_dir={source.data_dir}: {error}") from error


def _published(folder: str, variant: str = "zero_shot") -> _Entry:
    find = functools.partial(_find_published, folder=folder, variant=variant)
    return _Entry(folder, find, ("data_dir", "check_counts", "skip_bad_images"), variant)


_ENTRIES = {
    "emoji": _Entry("emoji", _find_emoji),
    "image_folder": _Entry(
        "image_folder",
        _find_image_folder,
        ("data_dir", "train_fraction", "class_order_seed", "skip_bad_images"),
    ),
    "fashion_mnist": _Entry("fashion_mnist", _find_fashion_mnist, ("data_dir",)),
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


def _check_options(source: SourceOptions, entry: _Entry) -> None:
    """Raises `UserError` if an option does not fit the data set."""
    name = source.dataset
    if source.crop_to_box and not entry.has_boxes:
        expected = ", ".join(name for name, other in _ENTRIES.items() if other.has_boxes)
        raise UserError(f"--crop_to_box: {name} has no bounding boxes; expected it with one of {expected}")
    if not source.check_counts and "check_counts" not in entry.options:
        raise UserError(
            f"--check_counts=false: expected it with a published data set; found --dataset={name}"
        )
    if source.skip_bad_images and "skip_bad_images" not in entry.options:
        raise UserError(
            "--skip_bad_images: expected it with image_folder or a published data set; "
            f"found --dataset={name}"
        )
    if source.download and not entry.is_public:
        expected = ", ".join(name for name, other in _ENTRIES.items() if other.is_public)
        advice = "" if entry.release is None else f"; {entry.release.advice('--data_dir')}"
        raise UserError(
            f"--download: {name} cannot be downloaded; expected it with one of {expected}{advice}"
        )


def read_folder(folder: str | os.PathLike[str]) -> list[tuple[str, str, str]]:
    """Returns the path, class and split of each image of a folder by the rules of `image_folder`.

    Raises:
        ValueError: if the folder or its manifest cannot be used.
    """
    layout = importlib.import_module("ccp_dml.datasets.image_folder.layout").read_layout(folder)
    return [(str(layout.source_dir / entry.file), entry.label, entry.split) for entry in layout.entries]


def upright_images(paths: Sequence[str]) -> list[bytes]:
    """Reads image files and converts them, in parallel, to upright RGB JPEG or PNG images.

    Raises:
        ValueError: if a file cannot be used; the message names it.
    """
    images = importlib.import_module("ccp_dml.datasets.common.images")
    files = ((path, path, pathlib.Path(path).read_bytes) for path in paths)
    converted = []
    for _, found in images.convert_all(files):
        if isinstance(found, images.ImageError):
            raise found
        converted.append(found)
    return converted


@contextlib.contextmanager
def _explained(source: SourceOptions, prepared_dir: str) -> Iterator[None]:
    """Adds advice to the errors of preparing and opening data."""
    images = importlib.import_module("ccp_dml.datasets.common.images")
    try:
        yield
    except images.ImageError as error:
        hint = "" if source.skip_bad_images else "; --skip_bad_images leaves them out"
        raise UserError(f"{error}{hint}") from error
    except OSError as error:  # Errors of source images are `ImageError`.
        raise UserError(f"--prepared_dir={prepared_dir}: cannot be used: {error.strerror}") from error


def _with_valid_boxes(name: str, images: ImageCollection) -> ImageCollection:
    """Returns the collection; raises `UserError` if an image has no valid box."""
    unknown = 0 if images.boxes is None else int((images.boxes[:, 2] == 0).sum())
    if unknown:
        raise UserError(
            f"--crop_to_box: {unknown:,} images of {name} have another size than the one that "
            "their bounding boxes are for; expected the images as published"
        )
    return images
