"""Builds the data set from a miniature in its published layout."""

import tensorflow_datasets as tfds

from ccp_dml.datasets.cifar10 import cifar10_dataset_builder
from ccp_dml.datasets.common import testing


class Cifar10Test(testing.OfficialTestCase):
    DATASET_CLASS = cifar10_dataset_builder.Builder
    SPLITS = {"train": 30, "test": 30}
    __test__ = True
    BUILDER_CONFIG_NAMES_TO_TEST = ["zero_shot"]


class Cifar10ClosedTest(testing.OfficialTestCase):
    DATASET_CLASS = cifar10_dataset_builder.Builder
    SPLITS = {"train": 50, "test": 10}
    __test__ = True
    BUILDER_CONFIG_NAMES_TO_TEST = ["closed"]


if __name__ == "__main__":
    tfds.testing.test_main()
