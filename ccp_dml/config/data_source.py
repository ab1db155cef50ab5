"""The data set that the flags name, as the catalog takes it."""

from __future__ import annotations

from ccp_dml.config.sections import DataConfig
from ccp_dml.data.catalog import Source


def data_source(data: DataConfig) -> Source:
    """Which data set is wanted, and where it comes from."""
    return Source(
        name=data.dataset,
        data_dir=data.data_dir,
        prepared_dir=data.prepared_dir,
        train_fraction=data.train_fraction,
        download=data.download,
        check_counts=data.check_counts,
        skip_bad_images=data.skip_bad_images,
        crop_to_box=data.crop_to_box,
        prepared_shorter_side=data.prepared_shorter_side,
    )
