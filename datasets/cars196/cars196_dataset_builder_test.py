"""Builds the data set from a miniature in its published layout."""

import tensorflow_datasets as tfds

from ccp_dml.datasets.cars196 import cars196_dataset_builder
from ccp_dml.datasets.common import testing


class Cars196Test(testing.OfficialTestCase):
    DATASET_CLASS = cars196_dataset_builder.Builder
    SPLITS = {"train": 4, "test": 4}
    __test__ = True


if __name__ == "__main__":
    tfds.testing.test_main()
