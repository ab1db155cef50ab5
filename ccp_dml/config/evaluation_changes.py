"""What may be asked of a finished run that it was not trained with: other test images, a PCA."""

from __future__ import annotations

import os

from ccp_dml.config import validation
from ccp_dml.config.experiment_config import ExperimentConfig
from ccp_dml.data import catalog


def changed(
    config: ExperimentConfig,
    *,
    dataset: str | None = None,
    data_dir: str | None = None,
    prepared_dir: str | None = None,
    pca_dim: int | None = None,
) -> ExperimentConfig:
    """The configuration of a run with another evaluation; None leaves a value as it is.

    Args:
        config: the run's, complete.
        dataset: the data set whose test images are scored.
        data_dir: where its source images are; with another data set that of the run does not count.
        prepared_dir: where prepared data goes.
        pca_dim: dimensions that a PCA leaves.

    Raises:
        ConfigError: a value cannot be used; the message names the flag.
        UserError: the data is not there.
    """
    changes: dict[str, object] = {}
    if dataset is not None and dataset != config.data.dataset:
        changes = {
            "dataset": dataset,
            "data_dir": None,
            "download": False,
            "closed_set": "off",
            "check_counts": config.data.check_counts or not catalog.is_published(dataset),
            "crop_to_box": False,
            "skip_bad_images": False,
        }
    if data_dir is not None:
        changes["data_dir"] = os.path.abspath(os.path.expanduser(data_dir))
    if prepared_dir is not None:
        changes["prepared_dir"] = os.path.abspath(os.path.expanduser(prepared_dir))
    if pca_dim is not None:
        changes["pca_dim"] = pca_dim
    if not changes:
        return config
    evaluated = config.replace(**changes)
    validation.check_values(evaluated.items())
    validation.check_pca(evaluated)
    if "dataset" in changes or "data_dir" in changes:
        validation.check_data(evaluated)
    return evaluated
