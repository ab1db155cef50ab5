"""What a run trains, validates and tests on."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from ccp_dml.config.class_split import split_classes
from ccp_dml.config.sections import DataConfig
from ccp_dml.data import catalog
from ccp_dml.data.image_collection import ImageCollection
from ccp_dml.data.pipeline import inference_batches
from ccp_dml.data.preprocessing import TestPreprocessing
from ccp_dml.evaluation.embedding import LabeledImages


@dataclass(frozen=True)
class Task:
    """The image collections of a run.

    Attributes:
        train: images to train on.
        validation: images of training classes that are held out; None if none are.
        test: images of unseen classes; the queries if there is a gallery.
        gallery: images that the queries are to find; None: the test images are searched for one another.
    """

    train: ImageCollection
    validation: ImageCollection | None
    test: ImageCollection
    gallery: ImageCollection | None

    def __str__(self) -> str:
        parts = {
            "train": self.train,
            "validation": self.validation,
            "test": self.test,
            "gallery": self.gallery,
        }
        sizes = [
            f"{name} {len(part):,} images of {len(np.unique(part.labels)):,} classes"
            for name, part in parts.items()
            if part is not None
        ]
        return "; ".join(sizes)


def load_task(config: DataConfig) -> Task:
    """Opens the data set (preparing it once) and holds the validation classes out.

    Raises:
        UserError: if the data is missing or unusable, or too small for the flags.
    """
    dataset = catalog.load(
        config.dataset,
        data_dir=config.data_dir,
        prepared_dir=config.prepared_dir,
        train_fraction=config.train_fraction,
    )
    train_classes, validation_classes = split_classes(config, dataset.train.num_classes)
    train = dataset.train.by_classes(train_classes)
    validation = dataset.train.by_classes(validation_classes) if len(validation_classes) else None
    return Task(train, validation, dataset.test, dataset.gallery)


def labeled_images(
    collection: ImageCollection, preprocessing: TestPreprocessing, batch_size: int
) -> LabeledImages:
    """A collection as evaluation takes it."""
    batches = inference_batches(collection, preprocessing, batch_size)
    return LabeledImages(batches, collection.labels, collection.image_ids)
