"""Builds an image folder from the three classes in the dummy data."""

import tensorflow_datasets as tfds

from ccp_dml.datasets.image_folder import image_folder_dataset_builder


class ImageFolderTest(tfds.testing.DatasetBuilderTestCase):
    DATASET_CLASS = image_folder_dataset_builder.Builder
    SPLITS = {"train": 5, "test": 2}
    MOCK_OUT_FORBIDDEN_OS_FUNCTIONS = False  # The source is a local folder by definition.

    def _make_builder(self, config=None):
        del config
        return self.DATASET_CLASS(source_dir=self.dummy_data, train_fraction=0.7, data_dir=self.tmp_dir)


if __name__ == "__main__":
    tfds.testing.test_main()
