"""The configuration of a finished run with another evaluation."""

from __future__ import annotations

from pathlib import Path

import pytest

from ccp_dml.config import ExperimentConfig
from ccp_dml.config.evaluation_changes import changed
from tests.datasets import miniatures


def of_cub(folder: Path, **flags) -> ExperimentConfig:
    """Of a run on a part of CUB."""
    data_dir = str(miniatures.write_cub(folder / "cub"))
    values = {"dataset": "cub", "data_dir": data_dir, "check_counts": False, **flags}
    return ExperimentConfig.from_dict(values).resolve()


@pytest.mark.parametrize(
    "flags", [{}, {"crop_to_box": True}, {"skip_bad_images": True}, {"closed_set": "shuffled"}]
)
def test_what_was_said_of_the_images_of_a_run_is_not_said_of_others(tmp_path, flags):
    data = changed(of_cub(tmp_path, **flags), dataset="emoji").data
    assert (data.dataset, data.data_dir, data.check_counts) == ("emoji", None, True)
    assert (data.crop_to_box, data.skip_bad_images, data.closed_set) == (False, False, "off")


def test_parts_of_published_sets_stay_parts(tmp_path):
    other = str(miniatures.write_inshop(tmp_path / "inshop"))
    data = changed(of_cub(tmp_path), dataset="inshop", data_dir=other).data
    assert (data.dataset, data.data_dir, data.check_counts) == ("inshop", other, False)


def test_nothing_changed(tmp_path):
    config = of_cub(tmp_path)
    assert changed(config) is config
    assert changed(config, dataset="cub", pca_dim=3) == config.replace(pca_dim=3)
