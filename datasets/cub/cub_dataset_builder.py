"""CUB-200-2011: photographs of 200 species of birds."""

from __future__ import annotations

from ccp_dml.datasets.common import official_builder
from ccp_dml.datasets.cub import release


class Builder(official_builder.OfficialBuilder):
    """Builds the data set from its published files; see `release`."""

    RELEASES = release.RELEASES
    BUILDER_CONFIGS = official_builder.builder_configs(RELEASES)
