"""Flags of the model and of its evaluation, as an experiment understands them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf

from ccp_dml import experiment
from ccp_dml.config import ExperimentConfig, command_line
from ccp_dml.errors import UserError
from ccp_dml.evaluation.embedding import embed
from ccp_dml.experiment import parts
from ccp_dml.experiment.experiment import Experiment
from ccp_dml.experiment.finished import FinishedRun
from ccp_dml.experiment.task import labeled_images
from ccp_dml.models.crops import with_test_crops
from ccp_dml.run_directory import RunDirectory
from tests.image_folder import SMALL_RUN, write_classes

FLAGS = ("--backbone_options=stages=2,blocks=1", "--normalization=l1", "--pooling=gem")


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    root = tmp_path_factory.mktemp("images")
    write_classes(root / "source", 12)
    return root


def configured(folder: Path, run_dir: Path, *flags: str) -> ExperimentConfig:
    paths = [
        f"--data_dir={folder / 'source'}",
        f"--prepared_dir={folder / 'prepared'}",
        f"--run_dir={run_dir}",
    ]
    return command_line.parse([*SMALL_RUN, *paths, *FLAGS, *flags])


def test_test_crops_are_averaged_in_the_evaluation(folder, tmp_path):
    subject = Experiment(configured(folder, tmp_path, "--test_crops=2"))
    config = subject.config
    images = labeled_images(subject.task.test, parts.test_preprocessing(config.data), 128)
    expected = embed(with_test_crops(subject.model, 2), images.batches, "l1")
    alone = embed(subject.model, images.batches, "l1")
    found = subject.evaluate_test().embeddings
    np.testing.assert_allclose(found, expected, atol=1e-5)
    assert np.abs(found - alone).max() > 1e-3


@pytest.mark.parametrize(
    "flag, message",
    [
        ("--backbone_layer=stage1", "--backbone_layer=stage1 --pooling=gem: 'stage1' is no layer of"),
        ("--frozen_layers=stage9", "--frozen_layers=stage9 --pooling=gem: 'stage9' matches no layer of"),
    ],
)
def test_layers_that_do_not_exist_are_refused_before_the_data_is_read(folder, tmp_path, flag, message):
    config = configured(folder, tmp_path, flag).replace(data_dir="/nonexistent")
    with pytest.raises(UserError, match=f"^--backbone=cifar_resnet .*{message}"):
        Experiment(config)


@pytest.mark.slow
def test_a_run_with_all_of_them(folder, tmp_path):
    config = configured(
        folder,
        tmp_path / "run",
        "--test_crops=2",
        "--frozen_layers=stem stage0_block0_reduce",
        "--backbone_layer=stage1_block0_add",
        "--steps_per_epoch=2",
        "--max_epochs=2",
    )
    before = {variable.name: variable.numpy() for variable in parts.make_model(config).weights}
    experiment.train(config)
    trained = FinishedRun(RunDirectory(tmp_path / "run"))
    changed = {
        variable.name.split("/")[0]
        for variable in trained.model.weights
        if np.any(variable.numpy() != before[variable.name])
    }
    assert "stage0_block0_conv" in changed
    assert "features" in changed
    assert not changed & {"stem", "stem_norm", "stage0_block0_reduce"}

    # What is served is what is evaluated.
    signature = tf.saved_model.load(str(tmp_path / "run" / "saved_model")).signatures["serving_default"]
    images = np.random.default_rng(0).uniform(0, 255, (2, 32, 32, 3)).astype(np.float32)
    side = config.data.test_shorter_side
    large = tf.image.resize(images, (side, side))
    start = (side - 32) // 2
    cropped = large[:, start : start + 32, start : start + 32]
    expected = embed(with_test_crops(trained.model, 2), [cropped], "l1")
    np.testing.assert_allclose(signature(images=tf.constant(large))["embeddings"], expected, atol=1e-4)
