"""Options that change the course of a run; `tests/commands/test_train.py` follows a run from start to end."""

from __future__ import annotations

import csv
from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf

from ccp_dml import experiment
from ccp_dml.config import ExperimentConfig, command_line
from ccp_dml.experiment.experiment import Experiment
from ccp_dml.experiment.parts import make_transforms
from ccp_dml.training.gradients import AverageRegularization
from tests.image_folder import SMALL_RUN, write_image

CLASSES, PER_CLASS, EPOCHS = 14, 4, 3


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    """Classes of nearly the same colours: no score is perfect."""
    root = tmp_path_factory.mktemp("images")
    for label in range(CLASSES):
        for index in range(PER_CLASS):
            file = root / "source" / f"class {label:02d}" / f"{index}.png"
            write_image(file, (120 + label % 4, 120 + label // 4, 128), seed=10 * label + index)
    return root


def configured(folder: Path, run_dir: Path, *flags: str) -> ExperimentConfig:
    return command_line.parse(
        [
            *SMALL_RUN[:-1],
            f"--data_dir={folder / 'source'}",
            f"--prepared_dir={folder / 'prepared'}",
            f"--run_dir={run_dir}",
            "--steps_per_epoch=4",
            "--chunk_size=2",
            f"--max_epochs={EPOCHS}",
            "--learning_rate=1e-3",
            *flags,
        ]
    )


def column(run_dir: Path, name: str) -> list[float]:
    with (run_dir / "metrics.csv").open(newline="") as file:
        return [float(row[name]) for row in csv.DictReader(file)]


@pytest.mark.slow
@pytest.mark.parametrize(
    "flags",
    [
        ["--monitor_split=test", "--num_folds=3", "--fold=1"],
        ["--noccp_use_representative_proxy", "--ccp_patience=1"],
        ["--pool_memory_steps=3", "--ccp_patience=1"],
        ["--ccp_step_at_batch", "--ccp_min_iterations=2", "--chunk_size="],
        ["--warm_up_epochs=1", "--warm_up_learning_rate=1e-2"],
        ["--ccp_reset_rule=staleness", "--ccp_staleness_threshold=0.01", "--ccp_normalized_embeddings"],
        ["--ccp_reset_rule=fixed", "--ccp_random_init", "--ccp_perturb_noise=0.01"],
        ["--ema_attraction=0.1", "--ema_repulsion=1e-6", "--ema_decay=0.9"],
        ["--loss=contrastive", "--proxies_per_class="],
    ],
    ids=lambda flags: flags[0].lstrip("-"),
)
def test_a_run_with(folder, tmp_path, flags):
    results = experiment.train(configured(folder, tmp_path / "run", *flags))
    assert results["epochs"] == EPOCHS
    assert np.isfinite(column(tmp_path / "run", "loss")).all()
    if "--ccp_reset_rule=staleness" in flags or "--ccp_reset_rule=fixed" in flags:
        assert column(tmp_path / "run", "problem_instance") == [0, 1, 2]


@pytest.mark.parametrize(
    "flags, expected", [({}, 0), ({"ema_attraction": 0.1}, 1), ({"ema_repulsion": 0.1}, 1)]
)
def test_weights_are_regularised_by_their_averages_if_asked_for(flags, expected):
    model = tf.keras.Sequential([tf.keras.layers.Dense(2, input_shape=[3])])
    transforms = make_transforms(ExperimentConfig.from_dict(flags).training, model, None)
    found = [transform for transform in transforms if isinstance(transform, AverageRegularization)]
    assert len(found) == expected
    assert all(len(transform.averages) == 2 for transform in found)


@pytest.mark.slow
@pytest.mark.parametrize("restore", [True, False])
def test_early_stopping_and_which_weights_are_evaluated(folder, tmp_path, restore):
    flags = ["--patience=1", "--max_epochs=40", f"--restore_best={restore}".lower(), "--notensorboard"]
    results = experiment.train(configured(folder, tmp_path / "run", *flags))
    scores = column(tmp_path / "run", "val_map_at_r")
    best = int(np.argmax(scores))
    assert results["best_epoch"] == best == len(scores) - 2
    evaluated = scores[best] if restore else scores[-1]
    assert results["validation"]["map_at_r"] == pytest.approx(evaluated, abs=1e-6)
    assert scores[best] != scores[-1]


# 7 classes train; the first fold of three validates on the last three of them.
@pytest.mark.parametrize("split, expected", [("test", 7 * PER_CLASS), ("validation", 3 * PER_CLASS)])
def test_the_monitored_images_are_those_that_are_scored(folder, tmp_path, split, expected):
    flags = [f"--monitor_split={split}", "--num_folds=3", "--fold=1"]
    subject = Experiment(configured(folder, tmp_path, *flags))
    assert subject.monitored is not None
    assert len(subject.monitored) == expected
    scores = subject.validation_scores()
    assert subject.monitored_embeddings.shape == (expected, 8)
    evaluation = subject.evaluate_test() if split == "test" else subject.evaluate_validation()
    assert evaluation is not None
    assert scores == {**scores, **evaluation.result.scalars()}
    assert set(scores) - set(evaluation.result.scalars()) == {"mean_cosine"}


def test_kept_validation_images_give_the_same_scores(folder, tmp_path):
    kept, read = (
        Experiment(configured(folder, tmp_path / "run", f"--validation_cache_mb={megabytes}"))
        for megabytes in (100, 0)
    )
    expected = read.evaluate_validation()
    for _ in range(2):
        found = kept.evaluate_validation()
        np.testing.assert_array_equal(found.embeddings, expected.embeddings)
        assert found.result.means() == expected.result.means()
