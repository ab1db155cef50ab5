"""Derived values, protocols, folds and repeats, and the runs that they make."""

from __future__ import annotations

import os

import numpy as np
import pytest

from ccp_dml.config import ExperimentConfig
from ccp_dml.config.checks import check
from ccp_dml.config.protocols import is_group, members, resolve, split_classes
from ccp_dml.errors import ConfigError, UserError
from tests import ROOT


def configured(**values) -> ExperimentConfig:
    return ExperimentConfig.from_dict(values)


@pytest.mark.parametrize(
    "values, expected",
    [
        ({}, {"validation_fraction": 0.25, "num_folds": None, "backbone_weights": "imagenet"}),
        ({"fold": 1}, {"validation_fraction": None, "num_folds": 4}),
        ({"monitor_split": "test"}, {"validation_fraction": 0.0}),
        ({"image_size": 227}, {"test_shorter_side": 256}),
        ({"image_size": (256, 128)}, {"image_size": [256, 128], "test_shorter_side": 144}),
        ({"preprocessing": "cifar"}, {"test_shorter_side": None}),
        ({"closed_set": "shuffled"}, {"validation_fraction": None}),
        ({}, {"batch_size": None}),
        ({"sampler": "random"}, {"batch_size": 32}),
        ({"backbone": "cifar_resnet"}, {"image_size": 32, "backbone_weights": "random"}),
        ({"backbone": "bn_inception"}, {"image_size": 227, "backbone_weights": "imagenet"}),
        ({}, {"freeze_batch_norm": True}),
        ({"freeze_batch_norm": False}, {"freeze_batch_norm": False}),
        ({"backbone": "cifar_resnet"}, {"freeze_batch_norm": False}),
        ({"backbone_weights": "/folder/w.npz"}, {"backbone_weights": "/folder/w.npz"}),
        ({"monitor": "precision_at_1"}, {"ccp_monitor": "precision_at_1", "ccp_stop_at_min": False}),
        ({"ccp_step_at_batch": True}, {"ccp_monitor": "loss", "ccp_stop_at_min": True}),
        ({"loss": "contrastive"}, {"ccp_monitor": None, "ccp_stop_at_min": None}),
        (
            {"loss": "contrastive", "pool_size": 3, "ccp_monitor": "loss"},
            {"pool_size": 7, "ccp_monitor": None},
        ),
        ({"warm_up_epochs": 1, "learning_rate": 0.5}, {"warm_up_learning_rate": 0.5}),
        ({"loss": "ccp/contrastive"}, {"normalization": "lipschitz"}),
        ({"loss": "mdr/contrastive"}, {"normalization": "none"}),
        ({"loss": "mdr/contrastive", "normalization": "unit"}, {"normalization": "unit"}),
        ({"loss": "mdr/ccp/contrastive"}, {"normalization": "unit"}),
    ],
)
def test_values_that_follow_from_others(values, expected):
    found = resolve(configured(**values)).to_dict()
    assert {name: found[name] for name in expected} == expected


def test_folders_become_absolute(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert resolve(configured(data_dir="images")).source.data_dir == str(tmp_path / "images")


@pytest.mark.parametrize(
    "values, message",
    [
        ({"protocol": "mlrc", "fold": 5}, "--fold=5: expected at most --num_folds=4"),
        ({"protocol": "mlrc", "validation_fraction": 0.2}, "contradicts --protocol=mlrc"),
        ({"protocol": "conventional", "fold": 2}, "--fold=2: contradicts --protocol=conventional"),
        ({"protocol": "conventional", "num_folds": 2}, "--num_folds=2: contradicts --protocol=conventional"),
        (
            {"protocol": "conventional", "validation_fraction": 0.2},
            "--validation_fraction=0.2: contradicts --protocol=conventional",
        ),
        (
            {"protocol": "conventional", "monitor_split": "validation"},
            "--monitor_split=validation: contradicts --protocol=conventional",
        ),
        ({"protocol": "ablation", "fold": "all"}, "--fold=all: contradicts --protocol=ablation"),
        ({"protocol": "ablation", "num_folds": 4}, "--num_folds=4: contradicts --protocol=ablation"),
        ({"fold": "all", "validation_fraction": 0.2}, "--validation_fraction=0.2: contradicts --fold=all"),
        ({"num_folds": 322, "fold": "all"}, "--num_folds=322 --fold=1: holds out one of the 322"),
        (
            {"protocol": "mlrc", "closed_set": "shuffled"},
            "--protocol=mlrc: contradicts --closed_set=shuffled",
        ),
        ({"seed": 2**31 - 2, "repeat": 3}, "--repeat=3: contradicts --seed=2147483646"),
        ({"pca_dim": 129}, "--pca_dim=129: expected at most --embedding_size=128"),
        ({"initial_weights": "/none/a.h5"}, "--initial_weights=/none/a.h5: does not exist"),
        ({"initial_weights": str(ROOT)}, "found a folder without checkpoints/best"),
    ],
)
def test_an_invalid_combination_is_an_error_that_names_the_flag(values, message):
    with pytest.raises(UserError) as error:
        check(configured(**values))
    assert message in str(error.value)


@pytest.mark.parametrize(
    "values, expected",
    [
        ({"protocol": "mlrc"}, {"num_folds": 4, "fold": "all", "monitor_split": "validation"}),
        ({"protocol": "mlrc", "fold": 2, "num_folds": 3}, {"num_folds": 3, "fold": 2}),
        ({"fold": "all"}, {"protocol": None, "num_folds": 4}),
        ({"protocol": "conventional"}, {"validation_fraction": 0.0, "monitor_split": "test", "fold": None}),
        ({"protocol": "ablation"}, {"num_folds": 3, "fold": 1, "monitor_split": "validation"}),
        ({"repeat": 2}, {"validation_fraction": 0.25, "fold": None}),
        ({"repeat": 2, "closed_set": "shuffled"}, {"validation_fraction": None}),
        ({"warm_up_epochs": 0.5}, {"warm_up_learning_rate": 1e-4}),
    ],
)
def test_values_that_follow_from_a_protocol(values, expected):
    config = configured(**values)
    check(config)
    complete = resolve(config)
    check(complete)
    assert resolve(complete) == complete
    found = complete.to_dict()
    assert {name: found[name] for name in expected} == expected
    for member in members(complete):
        check(member.config)
        assert resolve(member.config) == member.config


def test_the_members_of_a_group():
    config = configured(protocol="mlrc", num_folds=3, repeat=2, seed=7, run_dir="DIR", overwrite=True)
    group = members(resolve(config))
    assert [str(member) for member in group] == [
        f"fold {fold}, repeat {repeat} (seed {6 + repeat})" for repeat in (1, 2) for fold in (1, 2, 3)
    ]
    assert [member.config.run.run_dir for member in group[:4]] == [
        os.path.join("DIR", f"fold_{fold}", f"repeat_{repeat}")
        for fold, repeat in [(1, 1), (2, 1), (3, 1), (1, 2)]
    ]
    assert not any(member.config.run.overwrite or is_group(member.config) for member in group)


def test_repeats_without_folds_keep_the_split_of_a_single_run():
    config = resolve(configured(repeat=3, run_dir="DIR"))
    assert is_group(config)
    assert [member.config.split for member in members(config)] == [resolve(configured()).split] * 3
    assert [member.config.run.run_dir for member in members(config)] == [
        os.path.join("DIR", "fold_1", f"repeat_{repeat}") for repeat in (1, 2, 3)
    ]


@pytest.mark.parametrize("num_classes, first_of_validation", [(9, 6), (10, 6), (98, 65), (100, 66)])
def test_an_ablation_validates_on_the_last_third(num_classes, first_of_validation):
    config = configured(protocol="ablation", classes_per_batch=2)
    complete = resolve(config)
    training, validation = split_classes(complete.split, complete.batches, num_classes)
    np.testing.assert_array_equal(training, np.arange(first_of_validation))
    np.testing.assert_array_equal(validation, np.arange(first_of_validation, num_classes))


def test_initial_weights_may_differ_by_fold_and_repeat(tmp_path):
    for fold in (1, 2):
        (tmp_path / f"{fold}-1.h5").touch()
    config = configured(fold="all", num_folds=2, initial_weights=f"{tmp_path}/{{fold}}-{{repeat}}.h5")
    check(config)
    found = [member.config.model.initial_weights for member in members(resolve(config))]
    assert found == [f"{tmp_path}/1-1.h5", f"{tmp_path}/2-1.h5"]
    assert resolve(config.replace(fold=2)).model.initial_weights == found[1]
    with pytest.raises(ConfigError, match=r"--initial_weights=.*/1-2\.h5: does not exist"):
        check(config.replace(repeat=2))
