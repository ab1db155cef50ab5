"""Builds the data set from a miniature in its published layout."""

import tensorflow_datasets as tfds

from ccp_dml.datasets.common import testing
from ccp_dml.datasets.cub import cub_dataset_builder


class CubTest(testing.OfficialTestCase):
    DATASET_CLASS = cub_dataset_builder.Builder
    SPLITS = {"train": 4, "test": 4}
    __test__ = True


if __name__ == "__main__":
    tfds.testing.test_main()
