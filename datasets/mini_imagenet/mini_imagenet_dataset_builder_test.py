"""Builds the data set from a miniature in its published layout."""

import tensorflow_datasets as tfds

from ccp_dml.datasets.common import testing
from ccp_dml.datasets.mini_imagenet import mini_imagenet_dataset_builder


class MiniImagenetTest(testing.OfficialTestCase):
    DATASET_CLASS = mini_imagenet_dataset_builder.Builder
    SPLITS = {"train": 8, "test": 2}
    __test__ = True


if __name__ == "__main__":
    tfds.testing.test_main()
