"""Builds the data set from a miniature in its published layout."""

import tensorflow_datasets as tfds

from ccp_dml.datasets.cifar100 import cifar100_dataset_builder
from ccp_dml.datasets.common import testing


class Cifar100Test(testing.OfficialTestCase):
    DATASET_CLASS = cifar100_dataset_builder.Builder
    SPLITS = {"train": 160, "test": 40}
    __test__ = True
    BUILDER_CONFIG_NAMES_TO_TEST = ["zero_shot"]


class Cifar100ClosedTest(testing.OfficialTestCase):
    DATASET_CLASS = cifar100_dataset_builder.Builder
    SPLITS = {"train": 100, "test": 100}
    __test__ = True
    BUILDER_CONFIG_NAMES_TO_TEST = ["closed"]


class Cifar100CollageTest(testing.OfficialTestCase):
    DATASET_CLASS = cifar100_dataset_builder.Builder
    SPLITS = {"train": 96, "test": 64}
    __test__ = True
    BUILDER_CONFIG_NAMES_TO_TEST = ["collage"]


if __name__ == "__main__":
    tfds.testing.test_main()
