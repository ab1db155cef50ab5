"""A run with the user's own backbone: training, record, evaluation, and a module that has gone or changed."""

from __future__ import annotations

import sys

import numpy as np
import pytest
import tensorflow as tf

from ccp_dml import files
from ccp_dml.errors import UserError
from ccp_dml.experiment import run as experiment
from ccp_dml.experiment.finished import FinishedRun
from ccp_dml.run_directory import RunDirectory
from tests.models.backbones.test_any_backbone import SOURCE

SHORT = ("--steps_per_epoch=2", "--chunk_size=2", "--max_epochs=1", "--notensorboard")


@pytest.mark.parametrize(
    "backbone", ["own_network:network", pytest.param("keras:MobileNetV3Small", marks=pytest.mark.slow)]
)
def test_a_run_is_trained_exported_and_read_again(configured, tmp_path, monkeypatch, backbone):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [*sys.path])
    module = tmp_path / "own_network.py"
    module.write_text(SOURCE)
    weights = "random" if backbone.startswith("keras:") else "own"
    config = configured(
        tmp_path / "run", *SHORT, f"--backbone={backbone}", f"--backbone_weights={weights}", "--image_size=32"
    )
    experiment.train(config)
    directory = RunDirectory(tmp_path / "run")
    model = FinishedRun(directory).model
    images = np.random.default_rng(0).uniform(0, 255, (2, 32, 32, 3)).astype(np.float32)
    assert np.isfinite(model(images)).all()
    assert tf.saved_model.load(str(directory.saved_model)) is not None
    if weights == "own":
        assert files.read_json(directory.environment)["backbone"]["file"] == str(module)
        module.write_text(SOURCE + "\n")
        with pytest.raises(UserError, match="its checksum differs"):
            FinishedRun(directory)
        module.unlink()
        with pytest.raises(UserError, match="no module 'own_network'.*the run began with"):
            FinishedRun(directory)
    sys.modules.pop("own_network", None)
