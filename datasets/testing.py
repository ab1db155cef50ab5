"""What the tests of the builders of published data sets share."""

from __future__ import annotations

import tensorflow_datasets as tfds


class OfficialTestCase(tfds.testing.DatasetBuilderTestCase):
    """Builds the first variant from the dummy data, which are a miniature in the published layout."""

    MOCK_OUT_FORBIDDEN_OS_FUNCTIONS = False  # The source is a local folder.
    SKIP_CHECKSUMS = True  # Nothing is downloaded here.

    def _make_builder(self, config=None):
        variant = getattr(config, "name", config)  # With a fingerprint, where a builder gave it.
        return self.DATASET_CLASS(
            source_dir=self.dummy_data,
            config=variant and variant.split("-")[0],
            check_counts=False,
            data_dir=self.tmp_dir,
        )


# Only its subclasses are tests.
OfficialTestCase.__test__ = False
