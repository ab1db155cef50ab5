"""Builds the emoji data set from five classes of dummy data."""

from unittest import mock

import tensorflow_datasets as tfds

from ccp_dml.datasets.emoji import emoji_dataset_builder


class EmojiTest(tfds.testing.DatasetBuilderTestCase):
    DATASET_CLASS = emoji_dataset_builder.Builder
    SPLITS = {"train": 10, "test": 15}

    @classmethod
    def setUpClass(cls):
        super().setUpClass()
        archive = cls.dummy_data / "emoji.zip"
        patch = mock.patch.multiple(emoji_dataset_builder.Builder, ARCHIVE=archive, NUM_CLASSES=5)
        patch.start()
        cls.addClassCleanup(patch.stop)


if __name__ == "__main__":
    tfds.testing.test_main()
