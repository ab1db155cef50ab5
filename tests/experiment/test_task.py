"""Image collections of runs: noisy labels, closed sets, classes that are too small."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from ccp_dml.config import command_line
from ccp_dml.data.collection import ImageCollection
from ccp_dml.errors import UserError
from ccp_dml.experiment.task import Task, load_task
from tests.data.image_folder import SMALL_RUN, write_classes, write_emoji, write_manifest


def task_of(folder: Path, *flags: str) -> Task:
    arguments = (
        *SMALL_RUN,
        f"--data_dir={folder / 'data'}",
        f"--prepared_dir={folder / 'prepared'}",
        "--classes_per_batch=2",
        *flags,
    )
    config = command_line.parse(arguments)
    return load_task(config.source, config.split, config.batches)


def names_by_image(*collections: ImageCollection) -> dict[int, str]:
    """Names of classes by image id."""
    return {
        image: collection.class_names[label]
        for collection in collections
        for image, label in zip(collection.image_ids.tolist(), collection.labels)
    }


def test_training_and_validation_labels_are_noisy_and_test_labels_are_not(tmp_path):
    write_emoji(tmp_path / "data", num_classes=12)
    clean, noisy = (task_of(tmp_path, f"--label_noise={share}") for share in (0, 0.4))
    assert noisy.wrong_labels == 12
    names, noisy_names = (names_by_image(task.train, task.validation) for task in (clean, noisy))
    assert len(names) == len(noisy_names) == 30
    assert sum(noisy_names[image] != name for image, name in names.items()) == 12
    np.testing.assert_array_equal(noisy.test.labels, clean.test.labels)
    np.testing.assert_array_equal(
        noisy.train.labels, task_of(tmp_path, "--label_noise=0.4", "--seed=5").train.labels
    )
    other = task_of(tmp_path, "--label_noise=0.4", "--data_seed=1")
    assert other.train.image_ids.tolist() != noisy.train.image_ids.tolist()


def test_in_a_closed_set_only_training_labels_are_noisy(tmp_path):
    write_emoji(tmp_path / "data", num_classes=4, emoji_per_class=2)
    clean, noisy = (
        task_of(tmp_path, "--closed_set=in_order", f"--label_noise={share}") for share in (0, 0.5)
    )
    assert noisy.wrong_labels == (noisy.train.labels != clean.train.labels).sum() == 12
    for split in ("validation", "test"):
        np.testing.assert_array_equal(getattr(noisy, split).labels, getattr(clean, split).labels)
    # In order: of the ten images of a class, sorted by file, the first six train and the last two test.
    assert clean.train.image_ids[:7].tolist() == [0, 1, 2, 3, 4, 5, 10]
    assert clean.test.image_ids[:3].tolist() == [8, 9, 18]


@pytest.mark.parametrize(
    "flags, expected",
    [
        (
            ["--closed_set"],
            "--closed_set=shuffled: no class has two images in the validation split, so no query has a "
            "positive; expected classes of at least 10 images, found at most 5",
        ),
        (
            ["--label_noise=0.9", "--validation_fraction=0.5"],
            "--label_noise=0.9: 18 of 20 labels cannot be wrong, but 16 at most",
        ),
    ],
)
def test_classes_that_are_too_small_are_refused(tmp_path, flags, expected):
    write_emoji(tmp_path / "data", num_classes=8)
    with pytest.raises(UserError, match=expected):
        task_of(tmp_path, *flags)


def test_a_closed_set_needs_the_classes_of_a_batch(tmp_path):
    write_emoji(tmp_path / "data", num_classes=4, emoji_per_class=2)
    with pytest.raises(UserError, match="--classes_per_batch=5: expected at most 4, the number of classes"):
        task_of(tmp_path, "--closed_set", "--classes_per_batch=5")
    task = task_of(tmp_path, "--closed_set", "--classes_per_batch=4")
    assert task.train.num_classes == 4


def class_names(images: ImageCollection) -> set[str]:
    return {images.class_names[label] for label in images.labels}


def test_a_seed_orders_the_classes_of_all_splits(tmp_path):
    write_classes(tmp_path / "data", 16)
    sorted_task, one, again, other = (
        task_of(tmp_path, *flags)
        for flags in ([], ["--class_order_seed=1"], ["--class_order_seed=1"], ["--class_order_seed=2"])
    )
    assert class_names(sorted_task.test) == {f"class {label:02d}" for label in range(8, 16)}
    for task in (one, again, other):
        splits = [class_names(images) for images in (task.train, task.validation, task.test)]
        assert [len(names) for names in splits] == [6, 2, 8]
        assert len(set.union(*splits)) == 16
    assert class_names(one.test) == class_names(again.test)
    assert class_names(one.validation) == class_names(again.validation)
    assert len({frozenset(class_names(task.test)) for task in (sorted_task, one, other)}) == 3
    in_order = sorted(class_names(one.train) | class_names(one.validation))
    assert class_names(one.validation) != set(in_order[-2:])


@pytest.mark.parametrize(
    "flags, name", [([], "validation"), (["--protocol=conventional"], "training")], ids=["held_out", "all"]
)
def test_all_classes_may_train(tmp_path, capsys, flags, name):
    write_classes(tmp_path / "data", 8)
    task = task_of(tmp_path, "--train_fraction=1", *flags)
    assert f"--train_fraction=1: there are no test classes; what is called test below are the {name}" in (
        capsys.readouterr().err
    )
    trained = class_names(task.train) | (class_names(task.validation) if task.validation else set())
    assert len(trained) == 8
    assert len(class_names(task.train)) == (6 if task.validation else 8)
    assert task.test is (task.validation or task.train)


def manifest_rows(validation: tuple[int, ...]) -> list[tuple[str, str, str]]:
    """Rows of a manifest of six classes: two of the others train, and the last two test."""
    split = {label: "validation" if label in validation else "train" for label in range(4)}
    return [
        (f"class {label:02d}/{index}.png", f"class {label:02d}", split.get(label, "test"))
        for label in range(6)
        for index in range(3)
    ]


def test_a_manifest_names_the_validation_classes(tmp_path):
    write_manifest(write_classes(tmp_path / "data", 6), manifest_rows(validation=(0, 2)))
    task = task_of(tmp_path)
    splits = [class_names(images) for images in (task.train, task.validation, task.test)]
    assert splits == [{"class 01", "class 03"}, {"class 00", "class 02"}, {"class 04", "class 05"}]
    with pytest.raises(UserError, match="--fold=1: the manifest has validation images"):
        task_of(tmp_path, "--fold=1", "--num_folds=2")


@pytest.mark.parametrize(
    "validation, extra, expected",
    [
        ((1, 2), "class 00", "class 'class 00' is in train and in validation"),
        ((1,), None, "has one validation class, 'class 01'"),
    ],
)
def test_impossible_validation_splits_are_refused(tmp_path, validation, extra, expected):
    rows = manifest_rows(validation)
    if extra is not None:
        rows[0] = (f"{extra}/0.png", extra, "validation")
    write_manifest(write_classes(tmp_path / "data", 6), rows)
    with pytest.raises(UserError, match=expected):
        task_of(tmp_path)
