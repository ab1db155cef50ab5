"""CIFAR-10: 60,000 images of 32 x 32 pixels in 10 classes."""

from __future__ import annotations

from ccp_dml.datasets.cifar10 import release
from ccp_dml.datasets.common import official_builder


class Builder(official_builder.OfficialBuilder):
    """Builds the data set from its published files; see `release`."""

    RELEASES = release.RELEASES
    BUILDER_CONFIGS = official_builder.builder_configs(RELEASES)
