"""Cars196: photographs of 196 models of cars."""

from __future__ import annotations

from ccp_dml.datasets.cars196 import release
from ccp_dml.datasets.common import official_builder


class Builder(official_builder.OfficialBuilder):
    """Builds the data set from its published files; see `release`."""

    RELEASES = release.RELEASES
    BUILDER_CONFIGS = official_builder.builder_configs(RELEASES)
