"""The base of the tests of builders of published data sets."""

from __future__ import annotations

import tensorflow_datasets as tfds


class OfficialTestCase(tfds.testing.DatasetBuilderTestCase):
    """Builds a variant from the dummy data, a miniature in the published layout."""

    MOCK_OUT_FORBIDDEN_OS_FUNCTIONS = False  # The source is a local folder.
    SKIP_CHECKSUMS = True  # Nothing is downloaded here.

    def _make_builder(self, config=None):
        variant = getattr(config, "name", config)  # The name of a builder ends in a fingerprint.
        return self.DATASET_CLASS(
            source_dir=self.dummy_data,
            config=variant and variant.split("-")[0],
            check_counts=False,
            data_dir=self.tmp_dir,
        )


OfficialTestCase.__test__ = False  # Subclasses set it to True.
