"""The paper's values beside a group's."""

from __future__ import annotations

import pytest

from ccp_dml.config import ExperimentConfig
from ccp_dml.evaluation.report import Aggregate
from ccp_dml.experiment.published import published

AGGREGATES = {"separate": Aggregate(128, ({},)), "concatenated": Aggregate(512, ({},))}


def of_paper(**flags) -> ExperimentConfig:
    values = {"dataset": "cub", "backbone": "bn_inception", "loss": "ccp/contrastive", "protocol": "mlrc"}
    return ExperimentConfig.from_dict({**values, **flags}).resolve()


@pytest.mark.parametrize(
    "flags, note",
    [
        ({}, ""),
        ({"backbone": "resnet50"}, "its backbone is bn_inception, here resnet50"),
        ({"check_counts": False}, "other images or labels here: --check_counts=false"),
        (
            {"backbone": "resnet50", "crop_to_box": True, "label_noise": 0.1},
            "its backbone is bn_inception, here resnet50; "
            "other images or labels here: --crop_to_box --label_noise=0.1",
        ),
        ({"prepared_shorter_side": 256}, "other images or labels here: --prepared_shorter_side=256"),
        ({"skip_bad_images": True}, "other images or labels here: --skip_bad_images"),
    ],
)
def test_what_is_not_as_in_the_paper_is_said(flags, note):
    config = of_paper(**flags)
    found = published(config, config, AGGREGATES)
    assert found["paper_note"] == note
    assert found["paper_method"] == "C2-CCP-L"
    assert found["paper"]["separate"]["map_at_r"] == 0.2267
    assert found["paper"]["concatenated"]["map_at_r"] == 0.2802


@pytest.mark.parametrize(
    "flags, changes",
    [
        ({"num_folds": 3}, {}),
        ({"loss": "xbm/triplet"}, {}),
        ({"dataset": "emoji"}, {}),
        ({}, {"dataset": "cars196"}),
        ({}, {"pca_dim": 64}),
    ],
)
def test_other_results_have_no_row(flags, changes):
    config = of_paper(**flags)
    assert published(config, config.replace(**changes), AGGREGATES) == {"paper": {}}
