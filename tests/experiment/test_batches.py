"""What the flags of samplers and of preprocessing make."""

from __future__ import annotations

import numpy as np
import pytest

from ccp_dml.config import ExperimentConfig
from ccp_dml.config.sections import DataConfig
from ccp_dml.data.collection import ImageCollection, InMemoryRecords
from ccp_dml.data.images import PadAndCrop, TestPreprocessing, TrainPreprocessing
from ccp_dml.data.sampling import ClassUniformSampler, MPerClassSampler, RandomSampler, RepresentativeSampler
from ccp_dml.experiment import parts
from ccp_dml.experiment.batches import make_batches, make_sampler, train_preprocessing
from tests.data.conftest import encode, smooth_pixels

LABELS = np.repeat(np.arange(12), 5)
IMAGES = ImageCollection(
    LABELS,
    tuple(map(str, range(12))),
    np.arange(60),
    InMemoryRecords([encode(smooth_pixels(20, 20, index), "PNG") for index in range(60)]),
    np.arange(60),
)


def config_of(**flags) -> ExperimentConfig:
    return ExperimentConfig.from_dict(flags).resolve()


def data_of(**flags) -> DataConfig:
    return config_of(**flags).data


@pytest.mark.parametrize(
    "flags, expected",
    [
        ({}, MPerClassSampler(LABELS, 8, 4, 7)),
        ({"classes_per_batch": 3, "samples_per_class": 2}, MPerClassSampler(LABELS, 3, 2, 7)),
        ({"representative_lifetime": 5}, RepresentativeSampler(LABELS, 8, 4, 5, 7)),
        ({"sampler": "random"}, RandomSampler(60, 32, 7)),
        ({"sampler": "class_uniform", "batch_size": 9}, ClassUniformSampler(LABELS, 9, 7)),
    ],
)
def test_samplers(flags, expected):
    found = make_sampler(data_of(**flags), IMAGES, 7)
    assert type(found) is type(expected)
    assert found.batch_size == expected.batch_size
    for step in (0, 9, 14):
        np.testing.assert_array_equal(found.batch(step), expected.batch(step))


@pytest.mark.parametrize(
    "flags, train, test",
    [
        ({"image_size": 227}, TrainPreprocessing(227), TestPreprocessing(227, 256)),
        (
            {"image_size": 32, "preprocessing": "cifar"},
            PadAndCrop(32, 40, 127.5),
            TestPreprocessing(32, None, 127.5),
        ),
        (
            {"image_size": 64, "preprocessing": "cifar", "horizontal_flip": False},
            PadAndCrop(64, 80, 127.5, flip=False),
            TestPreprocessing(64, None, 127.5),
        ),
        (
            {"image_size": 28, "preprocessing": "mnist"},
            TestPreprocessing(28, None, gray=True),
            TestPreprocessing(28, None, gray=True),
        ),
    ],
)
def test_preprocessing(flags, train, test):
    data = data_of(**flags)
    assert train_preprocessing(data) == train
    assert parts.test_preprocessing(data) == test


@pytest.mark.parametrize("augment", [False, True])
def test_representatives_look_the_same_in_every_batch_unless_augmented(augment):
    config = config_of(
        classes_per_batch=12,
        samples_per_class=2,
        representative_lifetime=3,
        augment_representatives=augment,
        image_size=16,
        preprocessing="cifar",
    )
    pixels = {}
    for images, labels in make_batches(config, IMAGES)(0).take(3):
        for image, label in zip(images.numpy()[:12], labels.numpy()[:12, 0].tolist()):
            pixels.setdefault(label, []).append(image)
    same = [all(np.array_equal(image, views[0]) for image in views) for views in pixels.values()]
    assert len(same) == 12
    assert all(same) is not augment
