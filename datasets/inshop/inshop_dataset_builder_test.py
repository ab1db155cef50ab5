"""Builds the data set from a miniature in its published layout."""

import tensorflow_datasets as tfds

from ccp_dml.datasets.common import testing
from ccp_dml.datasets.inshop import inshop_dataset_builder


class InshopTest(testing.OfficialTestCase):
    DATASET_CLASS = inshop_dataset_builder.Builder
    SPLITS = {"train": 4, "query": 2, "gallery": 2}
    __test__ = True


if __name__ == "__main__":
    tfds.testing.test_main()
