"""Validation scores as a function of the flags."""

from __future__ import annotations

import pytest

from ccp_dml.errors import ConfigError
from ccp_dml.experiment import run as experiment
from ccp_dml.experiment.tuning import validation_score


@pytest.mark.slow
def test_the_score_is_that_of_the_evaluated_weights_of_a_run(configured, tmp_path):
    flags = (
        "--loss=contrastive",
        "--pool_size=7",
        "--steps_per_epoch=2",
        "--max_epochs=2",
        "--notensorboard",
    )
    config = configured(tmp_path / "run", *flags)
    score = validation_score(config)
    assert not (tmp_path / "run").exists()
    assert score == experiment.train(config)["validation"]["map_at_r"]


@pytest.mark.parametrize("flag", ["--protocol=conventional", "--monitor_split=test"])
def test_a_search_on_test_classes_is_refused(configured, tmp_path, flag):
    config = configured(tmp_path / "run", flag)
    with pytest.raises(ConfigError, match="--monitor_split=test: a search expects validation classes"):
        validation_score(config)
