"""The data sets by name. Listing and checking them imports neither TensorFlow nor TFDS."""

from __future__ import annotations

import importlib
import os
import pathlib
from dataclasses import replace
from typing import Any

from ccp_dml.data.image_collection import ImageCollection, ImageDataset
from ccp_dml.data.preparation_lock import preparation_lock
from ccp_dml.errors import UserError, as_user_errors

# Data sets of the field: the folder of the builder, and the variant of its classes.
_OFFICIAL = {
    "cub": ("cub", "zero_shot"),
    "cars196": ("cars196", "zero_shot"),
    "sop": ("sop", "zero_shot"),
    "inshop": ("inshop", "zero_shot"),
    "cifar10": ("cifar10", "zero_shot"),
    "cifar10_closed": ("cifar10", "closed"),
    "cifar100": ("cifar100", "zero_shot"),
    "cifar100_closed": ("cifar100", "closed"),
    "cifar100_collage": ("cifar100", "collage"),
    "imagenet": ("imagenet", "zero_shot"),
    "mini_imagenet": ("mini_imagenet", "zero_shot"),
}
_OWN = ("emoji", "image_folder", "fashion_mnist")
_WITHOUT_IMAGE_FILES = ("emoji", "fashion_mnist")
# What the builders themselves do not say without TensorFlow.
_NUM_TRAIN_CLASSES = {"emoji": 322, "fashion_mnist": 10}


def names() -> tuple[str, ...]:
    """Names that `--dataset` accepts."""
    return (*_OWN, *_OFFICIAL)


def check(
    name: str,
    data_dir: str | None = None,
    *,
    prepared_dir: str | None = None,
    train_fraction: float = 0.5,
    download: bool = False,
    check_counts: bool = True,
    skip_bad_images: bool = False,
    crop_to_box: bool = False,
) -> int:
    """Finds out, without TensorFlow, whether `load` has what it needs.

    Args:
        name: one of `names()`.
        data_dir: folder with the source images, or their archive; `emoji` needs none, nor does a published
            data set that is prepared, and `fashion_mnist` looks where the Debian package puts them.
        prepared_dir: where prepared data is kept, see `load`.
        train_fraction: share of the classes of an `image_folder` without manifest that is trained on.
        download: whether the source may be downloaded where no `data_dir` is given.
        check_counts: whether a published data set must have the published numbers of classes and images.
        skip_bad_images: whether images that cannot be used are left out, instead of being an error.
        crop_to_box: whether images are cropped to bounding boxes.

    Returns:
        The number of training classes, those held out for validation included.

    Raises:
        UserError: if the name is unknown, an option is not for this data set, or the source is missing or has
            not the layout expected; the message says what to get and where to put it.
    """
    if name not in names():
        raise UserError(f"--dataset={name} is unknown, expected one of: {', '.join(names())}")
    if crop_to_box and not (name in _OFFICIAL and _release(name).has_boxes):
        with_boxes = ", ".join(key for key in _OFFICIAL if _release(key).has_boxes)
        raise UserError(f"--crop_to_box: {name} has no bounding boxes; expected it with one of {with_boxes}")
    if name in _OWN and not check_counts:
        raise UserError(
            f"--check_counts=false: expected it with a published data set; found --dataset={name}"
        )
    if name in _WITHOUT_IMAGE_FILES and skip_bad_images:
        raise UserError(
            "--skip_bad_images: expected it with image_folder or a published data set; "
            f"found --dataset={name}"
        )
    if download and not (name in _OFFICIAL and _release(name).download_url):
        there_are = ", ".join(key for key in _OFFICIAL if _release(key).download_url)
        raise UserError(f"--download: {name} cannot be downloaded; expected it with one of {there_are}")
    if name == "fashion_mnist":
        with as_user_errors():
            importlib.import_module("datasets.fashion_mnist.source").find(data_dir)
    if name in _NUM_TRAIN_CLASSES:
        return _NUM_TRAIN_CLASSES[name]
    if name == "image_folder":
        return _check_folder(data_dir, train_fraction)
    is_whole = check_counts and not skip_bad_images
    return _check_official(
        name, data_dir, prepared_dir, download=download, check_counts=check_counts, is_whole=is_whole
    )


def load(
    name: str,
    *,
    data_dir: str | None = None,
    prepared_dir: str | None = None,
    train_fraction: float = 0.5,
    download: bool = False,
    check_counts: bool = True,
    skip_bad_images: bool = False,
    crop_to_box: bool = False,
) -> ImageDataset:
    """Opens a data set, preparing it (once) if need be.

    Args:
        name: one of `names()`.
        data_dir: see `check`.
        prepared_dir: where prepared data is kept; default `TFDS_DATA_DIR`, else a folder in the user's cache.
        train_fraction: see `check`.
        download: see `check`.
        check_counts: see `check`.
        skip_bad_images: see `check`.
        crop_to_box: whether the images are what is inside their bounding boxes.

    Returns:
        Collections of the training and the test images. Their classes are disjoint, unless a manifest or the
        name of the data set says otherwise.

    Raises:
        UserError: see `check`; also if an image cannot be read, a data set has not its published numbers of
            classes and images, or prepared data cannot be written.
    """
    check(
        name,
        data_dir,
        prepared_dir=prepared_dir,
        train_fraction=train_fraction,
        download=download,
        check_counts=check_counts,
        skip_bad_images=skip_bad_images,
        crop_to_box=crop_to_box,
    )
    from ccp_dml.data import prepared

    prepared_dir = prepared_dir or prepared.default_prepared_dir()
    options: dict[str, Any] = {"data_dir": prepared_dir}
    folder = name
    if name == "fashion_mnist":
        options |= {"source_dir": data_dir}
    elif name == "image_folder":
        options |= {
            "source_dir": data_dir,
            "train_fraction": train_fraction,
            "skip_bad_images": skip_bad_images,
        }
    elif name in _OFFICIAL:
        folder, variant = _OFFICIAL[name]
        options |= {
            "source_dir": data_dir,
            "config": variant,
            "check_counts": check_counts,
            "skip_bad_images": skip_bad_images,
        }
    from google.protobuf import json_format

    images = importlib.import_module("datasets.images")
    builder_class = importlib.import_module(f"datasets.{folder}.{folder}_dataset_builder").Builder
    with as_user_errors(), preparation_lock(prepared_dir, folder):
        try:
            # The builder looks for prepared data when it is made, so that is inside the lock too.
            builder = builder_class(file_format="array_record", **options)
            dataset = prepared.load_prepared(name, builder)
        except images.ImageError as error:
            hint = "" if skip_bad_images else "; --skip_bad_images leaves them out"
            raise UserError(f"{error}{hint}") from error
        except json_format.ParseError as error:
            raise UserError(
                f"--prepared_dir={prepared_dir}: the description of {name} is damaged ({error}); "
                f"delete its folder {folder} there, and it is prepared again"
            ) from error
        except OSError as error:  # Errors of source images are told apart and name the image.
            raise UserError(f"--prepared_dir={prepared_dir}: cannot be used: {error.strerror}") from error
    return _check_boxes(dataset) if crop_to_box else _without_boxes(dataset)


def _release(name: str) -> Any:
    folder, variant = _OFFICIAL[name]
    releases = importlib.import_module(f"datasets.{folder}.release").RELEASES
    return next(release for release in releases if release.variant == variant)


def _check_folder(data_dir: str | None, train_fraction: float) -> int:
    if not data_dir:
        raise UserError("--dataset=image_folder needs --data_dir, the folder with the images; none was given")
    if not os.path.isdir(os.path.expanduser(data_dir)):
        raise UserError(f"--data_dir={data_dir} is not a folder; expected the folder with the images")
    with as_user_errors():
        layout = importlib.import_module("datasets.image_folder.layout")
        entries = layout.read_layout(data_dir, train_fraction).splits["train"]
    return len({entry.label for entry in entries})


def _check_official(
    name: str,
    data_dir: str | None,
    prepared_dir: str | None,
    *,
    download: bool,
    check_counts: bool,
    is_whole: bool,
) -> int:
    """See `check`; a data set that need not be whole is prepared from a source that is there."""
    release = _release(name)
    published = release.sizes["train"].classes
    if is_whole and _is_prepared(release, prepared_dir):
        return published
    if not data_dir:
        if download and is_whole:
            return published
        needs = "--data_dir or --download" if release.download_url and is_whole else "--data_dir"
        raise UserError(f"--dataset={name} needs {needs}: {release.advice('--data_dir')}")
    try:
        files = release.find(data_dir)
        return published if check_counts else release.listing(files).sizes()["train"].classes
    except (ValueError, OSError) as error:
        raise UserError(f"--dataset={name} --data_dir={data_dir}: {error}") from error


def _is_prepared(release: Any, prepared_dir: str | None) -> bool:
    from ccp_dml.data import prepared

    top = pathlib.Path(prepared_dir or prepared.default_prepared_dir()).expanduser()
    # TFDS gives the folder its name when all is written.
    return (top / release.name / release.variant / release.VERSION).is_dir()


def _collections(dataset: ImageDataset) -> dict[str, ImageCollection]:
    parts = {"train": dataset.train, "test": dataset.test, "gallery": dataset.gallery}
    return {name: part for name, part in parts.items() if part is not None}


def _without_boxes(dataset: ImageDataset) -> ImageDataset:
    parts = {name: replace(part, boxes=None) for name, part in _collections(dataset).items()}
    return replace(dataset, **parts)  # type: ignore[arg-type]


def _check_boxes(dataset: ImageDataset) -> ImageDataset:
    for part in _collections(dataset).values():
        unknown = 0 if part.boxes is None else int((part.boxes[:, 2] == 0).sum())
        if unknown:
            raise UserError(
                f"--crop_to_box: {unknown:,} images of {dataset.name} have another size than the one that "
                "their bounding boxes are for; expected the images as published"
            )
    return dataset
