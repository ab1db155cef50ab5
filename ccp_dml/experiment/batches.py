"""The training batches of a run, made from its configuration."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import tensorflow as tf

from ccp_dml.config import ExperimentConfig
from ccp_dml.config.sections import DataConfig
from ccp_dml.data.collection import ImageCollection
from ccp_dml.data.images import Augmentation, PadAndCrop, TestPreprocessing, TrainPreprocessing
from ccp_dml.data.pipeline import WHOLE, Shard, training_batches
from ccp_dml.data.sampling import (
    ClassUniformSampler,
    MPerClassSampler,
    RandomSampler,
    RepresentativeSampler,
    Sampler,
)
from ccp_dml.experiment.parts import MID_GRAY, test_preprocessing
from ccp_dml.training.distributed_batches import distributed_batches

# CIFAR images of 32 pixels are shifted by up to 4 in each direction: cut out of 40.
_PADDED_SIZE_RATIO = 40 / 32


def make_batches(
    config: ExperimentConfig, images: ImageCollection, strategy: tf.distribute.Strategy | None = None
) -> Callable[[int], Any]:
    """The stream of training batches from a step on, divided among the replicas of a strategy."""
    data, seed = config.data, config.run.seed
    sampler, preprocessing = make_sampler(data, images, seed), train_preprocessing(data)
    unaugmented = None
    if data.representative_lifetime and not data.augment_representatives:
        unaugmented = (data.classes_per_batch, test_preprocessing(data))

    def batches(first_step: int, shard: Shard = WHOLE) -> tf.data.Dataset:
        return training_batches(
            images,
            sampler,
            preprocessing,
            seed=seed,
            first_step=first_step,
            unaugmented=unaugmented,
            shard=shard,
        )

    if strategy is None:
        return batches
    return distributed_batches(
        strategy,
        lambda first_step, worker, workers, replicas: batches(first_step, Shard(worker, workers, replicas)),
    )


def make_sampler(data: DataConfig, images: ImageCollection, seed: int) -> Sampler:
    """The choice of the images of each batch."""
    if data.sampler != "m_per_class":
        assert data.batch_size is not None
        if data.sampler == "random":
            return RandomSampler(len(images), data.batch_size, seed)
        return ClassUniformSampler(images.labels, data.batch_size, seed)
    classes, samples, lifetime = data.classes_per_batch, data.samples_per_class, data.representative_lifetime
    if lifetime:
        return RepresentativeSampler(images.labels, classes, samples, lifetime, seed)
    return MPerClassSampler(images.labels, classes, samples, seed)


def train_preprocessing(config: DataConfig) -> Augmentation | TestPreprocessing:
    """Augmentation of training images; as they are tested if there is none."""
    assert config.image_size is not None
    if config.preprocessing == "mnist":
        return test_preprocessing(config)
    if config.preprocessing == "cifar":
        padded_size = round(config.image_size * _PADDED_SIZE_RATIO)
        return PadAndCrop(config.image_size, padded_size, MID_GRAY, config.horizontal_flip)
    return TrainPreprocessing(
        config.image_size,
        area_range=(config.crop_area_min, config.crop_area_max),
        aspect_range=(config.crop_aspect_min, config.crop_aspect_max),
        flip=config.horizontal_flip,
    )
