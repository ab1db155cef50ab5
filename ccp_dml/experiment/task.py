"""The images of a run: for training, validation and test."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from ccp_dml.commands import warn
from ccp_dml.config.protocols import split_classes
from ccp_dml.data import catalog
from ccp_dml.data.collection import ImageCollection, ImageDataset
from ccp_dml.data.options import BatchOptions, SourceOptions, SplitOptions
from ccp_dml.data.splits import add_label_noise, closed_set
from ccp_dml.errors import UserError


@dataclass(frozen=True)
class Task:
    """The image collections of a run.

    Attributes:
        train: images to train on.
        validation: images of held-out training classes; None if there are none.
        test: images of unseen classes; the queries if there is a gallery.
        gallery: images that are ranked for the queries; None: the test images.
        dataset: the data set that the collections are parts of.
        wrong_labels: number of training images, held-out classes included, whose label was replaced.
    """

    train: ImageCollection
    validation: ImageCollection | None
    test: ImageCollection
    gallery: ImageCollection | None
    dataset: ImageDataset
    wrong_labels: int = 0

    @property
    def training_split(self) -> list[ImageCollection]:
        """The images for training and validation; together the same images for every fold."""
        return [self.train] if self.validation is None else [self.train, self.validation]

    def __str__(self) -> str:
        sizes = [
            f"{name} {images:,} images of {classes:,} classes"
            for name, (images, classes) in self._sizes().items()
        ]
        noise = [f"{self.wrong_labels:,} training labels are wrong on purpose"] if self.wrong_labels else []
        return "; ".join(sizes + noise)

    def summary(self) -> dict[str, Any]:
        """Numbers of images and classes, for `results.json`."""
        sizes = {
            name: {"images": images, "classes": classes} for name, (images, classes) in self._sizes().items()
        }
        return {**sizes, "wrong_labels": self.wrong_labels, "skipped_images": len(self.dataset.skipped)}

    def _sizes(self) -> dict[str, tuple[int, int]]:
        """Numbers of images and of classes."""
        collections = {
            "train": self.train,
            "validation": self.validation,
            "test": self.test,
            "gallery": self.gallery,
        }
        return {
            name: (len(images), len(np.unique(images.labels)))
            for name, images in collections.items()
            if images is not None
        }


def open_dataset(source: SourceOptions, split: SplitOptions) -> ImageDataset:
    """Opens the data set, without validation classes; prepares it at the first use.

    Raises:
        UserError: if the data is missing or unusable.
    """
    dataset = catalog.load(source)
    if split.closed_set == "off" and len(dataset.test):
        _check_test_classes(source, dataset)
    skipped = dataset.skipped_in_words()
    if skipped is not None:
        warn(f"--skip_bad_images: {skipped}")
    return dataset


def load_task(source: SourceOptions, split: SplitOptions, batches: BatchOptions) -> Task:
    """Opens the data set and splits it; prepares it at the first use.

    Args:
        source: the data set.
        split: the classes for training and validation; complete, of a single run.
        batches: batches that the training classes have to suffice for.

    Raises:
        UserError: if the data is missing or unusable, or too small for the options.
    """
    dataset = open_dataset(source, split)
    if split.closed_set != "off":
        return _closed_set_task(split, batches, dataset)
    images = _with_label_noise(split, dataset.train)
    train_classes, validation_classes = split_classes(
        split,
        batches,
        images.num_classes,
        seed=source.class_order_seed,
        has_validation=dataset.validation is not None,
    )
    train = images.by_classes(train_classes)
    validation = dataset.validation if split.validation_fraction else None
    if len(validation_classes):
        validation = images.by_classes(validation_classes)
    wrong_labels = int((images.labels != dataset.train.labels).sum())
    test = dataset.test
    if not len(test):
        test, name = (train, "training") if validation is None else (validation, "validation")
        warn(
            f"--train_fraction={source.train_fraction:g}: there are no test classes; what is called test "
            f"below are the {name} images, whose scores are too good for a test"
        )
    return Task(train, validation, test, dataset.gallery, dataset, wrong_labels)


def _check_test_classes(source: SourceOptions, dataset: ImageDataset) -> None:
    """Raises `UserError` if all searched images are of one class, with which every model scores 100 %."""
    searched = dataset.test if dataset.gallery is None else dataset.gallery
    classes = np.unique(searched.labels)
    if len(classes) == 1:
        name = searched.class_names[classes[0]]
        raise UserError(
            f"--dataset={source.dataset}: the images to be found in the test are of one class, {name!r}, "
            "within which every neighbour is right; expected at least two classes"
        )


def _closed_set_task(split: SplitOptions, batches: BatchOptions, dataset: ImageDataset) -> Task:
    seed = split.data_seed if split.closed_set == "shuffled" else None
    try:
        train, validation, test = closed_set(dataset, seed)
    except ValueError as error:
        raise UserError(f"--closed_set={split.closed_set}: {error}") from error
    if batches.sampler == "m_per_class" and train.num_classes < batches.classes_per_batch:
        raise UserError(
            f"--classes_per_batch={batches.classes_per_batch}: expected at most {train.num_classes}, "
            "the number of classes"
        )
    noisy = _with_label_noise(split, train)
    wrong_labels = int((noisy.labels != train.labels).sum())
    return Task(noisy, validation, test, None, dataset, wrong_labels)


def _with_label_noise(split: SplitOptions, images: ImageCollection) -> ImageCollection:
    try:
        return add_label_noise(images, split.label_noise, split.data_seed) if split.label_noise else images
    except ValueError as error:
        raise UserError(f"--label_noise={split.label_noise:g}: {error}") from error
