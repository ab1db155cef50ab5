"""Builds Fashion-MNIST from the few images in the dummy data."""

import tensorflow_datasets as tfds

from ccp_dml.datasets.fashion_mnist import fashion_mnist_dataset_builder


class FashionMnistTest(tfds.testing.DatasetBuilderTestCase):
    DATASET_CLASS = fashion_mnist_dataset_builder.Builder
    SPLITS = {"train": 20, "test": 20}
    MOCK_OUT_FORBIDDEN_OS_FUNCTIONS = False  # The source is a local folder by definition.

    def _make_builder(self, config=None):
        del config
        return self.DATASET_CLASS(source_dir=self.dummy_data, data_dir=self.tmp_dir)


if __name__ == "__main__":
    tfds.testing.test_main()
