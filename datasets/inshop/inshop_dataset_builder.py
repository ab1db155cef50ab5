"""In-shop Clothes Retrieval: photographs of 7,982 pieces of clothing."""

from __future__ import annotations

from ccp_dml.datasets.common import official_builder
from ccp_dml.datasets.inshop import release


class Builder(official_builder.OfficialBuilder):
    """Builds the data set from its published files; see `release`."""

    RELEASES = release.RELEASES
    BUILDER_CONFIGS = official_builder.builder_configs(RELEASES)
