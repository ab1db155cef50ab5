"""Builds the data set from a miniature in its published layout."""

import tensorflow_datasets as tfds

from ccp_dml.datasets.common import testing
from ccp_dml.datasets.sop import sop_dataset_builder


class SopTest(testing.OfficialTestCase):
    DATASET_CLASS = sop_dataset_builder.Builder
    SPLITS = {"train": 4, "test": 4}
    __test__ = True


if __name__ == "__main__":
    tfds.testing.test_main()
