"""Variants of a data set, samplers and preprocessing, each from the command line to the results."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

import train
from ccp_dml import commands, evaluate
from ccp_dml.config import command_line
from ccp_dml.errors import UserError
from ccp_dml.evaluation.report import format_table
from ccp_dml.experiment.task import load_task
from ccp_dml.run_directory import RunDirectory
from tests.image_folder import DESIGNS, SMALL_RUN, write_emoji, write_manifest

# What SMALL_RUN says of batches, taken back.
OTHER_SAMPLER = ("--classes_per_batch=8", "--samples_per_class=4")


@pytest.fixture
def run(tmp_path, capsys):
    """Trains on the folder `data`, for two epochs by default; returns what was printed, and the results."""

    def train_on(*flags: str) -> tuple[str, dict[str, Any]]:
        arguments = (
            *SMALL_RUN,
            f"--data_dir={tmp_path / 'data'}",
            f"--prepared_dir={tmp_path / 'prepared'}",
            f"--run_dir={tmp_path / 'run'}",
            "--image_size=16",
            "--steps_per_epoch=2",
            "--max_epochs=2",
            "--notensorboard",
            *flags,
        )
        assert commands.run(lambda: train.main(arguments)) == 0
        return capsys.readouterr().out, RunDirectory(tmp_path / "run").read_results()

    return train_on


def test_a_closed_set(run, tmp_path, capsys):
    write_emoji(tmp_path / "data", num_classes=6, emoji_per_class=2)
    batches = ["--classes_per_batch=4", "--representative_lifetime=2"]
    loss = ["--loss=contrastive", "--proxies_per_class=", "--pool_size=7"]
    printed, results = run("--closed_set", "--data_seed=3", "--max_epochs=1", *batches, *loss)
    assert "train 36 images of 6 classes; validation 12 images of 6 classes; test 12 images of 6" in printed
    assert results["data"] == {
        "train": {"images": 36, "classes": 6},
        "validation": {"images": 12, "classes": 6},
        "test": {"images": 12, "classes": 6},
        "skipped_images": 0,
        "wrong_labels": 0,
    }
    assert results["config"]["closed_set"] == "shuffled"
    assert results["validation"]["num_queries"] == results["test"]["num_queries"] == 12
    assert commands.run(lambda: evaluate.main([f"--run_dir={tmp_path / 'run'}"])) == 0
    assert capsys.readouterr().out == format_table({"contrastive": results["test"]}) + "\n"


@pytest.mark.slow
def test_noisy_labels(run, tmp_path):
    write_emoji(tmp_path / "data", num_classes=14)
    flags = ["--label_noise=0.2", "--validation_fraction=0.3", "--preprocessing=mnist"]
    printed, results = run(*OTHER_SAMPLER, "--sampler=random", *flags)
    assert "7 training labels are wrong on purpose" in printed
    assert results["data"]["wrong_labels"] == round(0.2 * 7 * len(DESIGNS))
    assert results["config"]["label_noise"] == 0.2
    assert results["config"]["batch_size"] == 32
    assert results["data"]["test"] == {"images": 35, "classes": 7}
    assert np.isfinite(results["test"]["map_at_r"])


@pytest.mark.slow
def test_queries_and_gallery(run, tmp_path):
    names = write_emoji(tmp_path / "data", num_classes=9)
    files = {name: sorted((tmp_path / "data" / name).iterdir()) for name in names}
    splits = {name: ["train"] * 5 for name in names[:6]}
    splits |= {name: ["query", *["gallery"] * 4] for name in names[6:]}
    rows = [
        (f"{name}/{file.name}", name, split)
        for name in names
        for file, split in zip(files[name], splits[name])
    ]
    write_manifest(tmp_path / "data", rows)
    flags = ["--sampler=class_uniform", "--batch_size=6", "--preprocessing=cifar"]
    printed, results = run(*OTHER_SAMPLER, *flags, "--validation_fraction=0.34")
    assert "gallery 12 images of 3 classes" in printed
    assert results["data"]["gallery"] == {"images": 12, "classes": 3}
    assert results["test"]["num_queries"] == 3


def task_of(folder: Path, *flags: str):
    arguments = (
        *SMALL_RUN,
        f"--data_dir={folder / 'data'}",
        f"--prepared_dir={folder / 'prepared'}",
        "--classes_per_batch=2",
        *flags,
    )
    return load_task(command_line.parse(arguments).data)


def test_held_out_classes_have_noisy_labels_and_test_classes_have_not(tmp_path):
    write_emoji(tmp_path / "data", num_classes=12)
    clean, noisy = (task_of(tmp_path, f"--label_noise={share}") for share in (0, 0.4))
    assert noisy.wrong_labels == 12
    images = {
        image: name
        for part in (clean.train, clean.validation)
        for image, name in zip(part.image_ids.tolist(), np.array(part.class_names)[part.labels])
    }
    wrong = [
        images[image] != name
        for part in (noisy.train, noisy.validation)
        for image, name in zip(part.image_ids.tolist(), np.array(part.class_names)[part.labels])
    ]
    assert len(wrong) == 30
    assert sum(wrong) == 12
    np.testing.assert_array_equal(noisy.test.labels, clean.test.labels)
    np.testing.assert_array_equal(
        noisy.train.labels, task_of(tmp_path, "--label_noise=0.4", "--seed=5").train.labels
    )
    other = task_of(tmp_path, "--label_noise=0.4", "--data_seed=1")
    assert other.train.image_ids.tolist() != noisy.train.image_ids.tolist()


def test_in_a_closed_set_the_training_part_alone_is_noisy(tmp_path):
    write_emoji(tmp_path / "data", num_classes=4, emoji_per_class=2)
    clean, noisy = (
        task_of(tmp_path, "--closed_set=in_order", f"--label_noise={share}") for share in (0, 0.5)
    )
    assert noisy.wrong_labels == (noisy.train.labels != clean.train.labels).sum() == 12
    for part in ("validation", "test"):
        np.testing.assert_array_equal(getattr(noisy, part).labels, getattr(clean, part).labels)
    # In order: of the ten images of a class, sorted by file, the first six train and the last two test.
    assert clean.train.image_ids[:7].tolist() == [0, 1, 2, 3, 4, 5, 10]
    assert clean.test.image_ids[:3].tolist() == [8, 9, 18]


@pytest.mark.parametrize(
    "flags, expected",
    [
        (["--closed_set"], "--closed_set=shuffled: no class has two images in the validation part"),
        (
            ["--label_noise=0.9", "--validation_fraction=0.5"],
            "--label_noise=0.9: 18 of 20 labels cannot be wrong, but 16 at most",
        ),
    ],
)
def test_classes_that_are_too_small(tmp_path, flags, expected):
    write_emoji(tmp_path / "data", num_classes=8)
    with pytest.raises(UserError, match=expected):
        task_of(tmp_path, *flags)


def test_a_closed_set_needs_the_classes_of_a_batch(tmp_path):
    write_emoji(tmp_path / "data", num_classes=4, emoji_per_class=2)
    with pytest.raises(UserError, match="--classes_per_batch=5: expected at most 4, the number of classes"):
        task_of(tmp_path, "--closed_set", "--classes_per_batch=5")
    task = task_of(tmp_path, "--closed_set", "--classes_per_batch=4")
    assert task.train.num_classes == 4
