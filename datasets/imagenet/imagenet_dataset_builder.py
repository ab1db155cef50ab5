"""ImageNet: the 1,000 classes of the ILSVRC 2012 classification task."""

from __future__ import annotations

from ccp_dml.datasets.common import official_builder
from ccp_dml.datasets.imagenet import release


class Builder(official_builder.OfficialBuilder):
    """Builds the data set from its published files; see `release`."""

    RELEASES = release.RELEASES
    BUILDER_CONFIGS = official_builder.builder_configs(RELEASES)
