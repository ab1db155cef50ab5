"""Rules between options: each error is one line that names the flag."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from ccp_dml.config import ExperimentConfig
from ccp_dml.config.checks import check, check_flags, warnings, with_other_evaluation
from ccp_dml.config.protocols import resolve
from ccp_dml.errors import ConfigError, UserError
from tests.datasets import miniatures


def configured(**values: Any) -> ExperimentConfig:
    return ExperimentConfig.from_dict(values)


@pytest.mark.parametrize(
    "values, message",
    [
        (
            {"crop_area_min": 0.9, "crop_area_max": 0.5},
            "--crop_area_min=0.9: expected at most --crop_area_max=0.5",
        ),
        (
            {"image_size": 64, "test_shorter_side": 60},
            "--test_shorter_side=60: expected at least --image_size=64",
        ),
        (
            {"image_size": (96, 64), "test_shorter_side": 60},
            "--test_shorter_side=60: expected at least 64, the smaller side of --image_size=96x64",
        ),
        ({"fold": 1, "validation_fraction": 0.2}, "--validation_fraction=0.2: contradicts --fold=1"),
        ({"fold": 5, "num_folds": 4}, "--fold=5: expected at most --num_folds=4"),
        ({"num_folds": 4}, "--num_folds=4: has no effect without --fold"),
        ({"closed_set": "shuffled", "fold": 1}, "--fold=1: contradicts --closed_set=shuffled"),
        ({"closed_set": "in_order", "validation_fraction": 0.2}, "--validation_fraction=0.2: contradicts"),
        (
            {"closed_set": "shuffled", "train_fraction": 0.7},
            "--train_fraction=0.7: has no effect with --closed_set=shuffled; expected --closed_set=off",
        ),
        ({"data_seed": 1}, "--data_seed=1: has no effect; expected --closed_set=shuffled or --label_noise"),
        ({"data_seed": 1, "closed_set": "in_order"}, "--data_seed=1: has no effect"),
        (
            {"sampler": "random", "samples_per_class": 2},
            "--samples_per_class=2: has no effect with --sampler=random; expected --sampler=m_per_class",
        ),
        (
            {"sampler": "class_uniform", "classes_per_batch": 9},
            "--classes_per_batch=9: has no effect with --sampler=class_uniform",
        ),
        (
            {"batch_size": 64},
            "--batch_size=64: has no effect with --sampler=m_per_class; "
            "expected --sampler=random or class_uniform, or --classes_per_batch and --samples_per_class",
        ),
        (
            {"sampler": "random", "representative_lifetime": 3},
            "--representative_lifetime=3: has no effect with --sampler=random",
        ),
        (
            {"representative_lifetime": 3, "samples_per_class": 1},
            "--samples_per_class=1: expected at least 2, the representative and another image, with",
        ),
        (
            {"augment_representatives": True},
            "--augment_representatives=true: has no effect with --representative_lifetime=0; "
            "expected --representative_lifetime to be an integer, at least 1",
        ),
        (
            {"preprocessing": "cifar", "crop_area_min": 0.5},
            "--crop_area_min=0.5: has no effect with --preprocessing=cifar; expected --preprocessing=dml",
        ),
        (
            {"preprocessing": "mnist", "horizontal_flip": False},
            "--horizontal_flip=false: has no effect with --preprocessing=mnist; "
            "expected --preprocessing=dml or cifar",
        ),
        (
            {"preprocessing": "mnist", "test_shorter_side": 300},
            "--test_shorter_side=300: has no effect with --preprocessing=mnist",
        ),
        ({"validation_fraction": 0.0}, "--validation_fraction=0"),
        ({"monitor": "accuracy"}, "--monitor=accuracy: expected one of map_at_r"),
        ({"monitor": "recall_at_3"}, "--monitor=recall_at_3: expected 3 to be listed in --recall_at"),
        ({"ccp_monitor": "map_at_9"}, "--ccp_monitor=map_at_9: expected 9 to be listed in --map_at"),
        ({"ccp_step_at_batch": True, "ccp_monitor": "map_at_r"}, "expected loss with --ccp_step_at_batch"),
        (
            {"ccp_min_iterations": 5, "ccp_max_iterations": 4},
            "--ccp_max_iterations=4: expected at least --ccp_min",
        ),
        (
            {"ccp_reset_rule": "staleness", "ccp_use_representative_proxy": False},
            "--ccp_reset_rule=staleness: contradicts --noccp_use_representative_proxy",
        ),
        (
            {"warm_up_learning_rate": 0.1},
            "--warm_up_learning_rate=0.1: has no effect; expected --warm_up_epochs above 0",
        ),
        ({"ema_decay": 0.9}, "--ema_decay=0.9: has no effect; expected --ema_attraction"),
        ({"momentum": 0.5}, "--momentum=0.5: has no effect with --optimizer=adam"),
        (
            {"plateau_factor": 0.1},
            "--plateau_factor=0.1: has no effect with --learning_rate_schedule=constant",
        ),
        (
            {"ccp_patience": 5, "ccp_reset_rule": "fixed"},
            "--ccp_patience=5: has no effect with --ccp_reset_rule",
        ),
        (
            {"ccp_normalized_embeddings": True, "pool_size": 1},
            "--ccp_normalized_embeddings=true: has no effect with --pool_size=1; "
            "expected --pool_size to be an integer, at least 2",
        ),
        (
            {"ccp_step_at_batch": True, "chunk_size": 5},
            "--chunk_size=5: has no effect with --ccp_step_at_batch=true; "
            "expected --ccp_step_at_batch=false",
        ),
        (
            {"monitor_split": "test", "validation_cache_mb": 9},
            "--validation_cache_mb=9: has no effect with --monitor_split=test; "
            "expected --monitor_split=validation",
        ),
        (
            {"protocol": "conventional", "validation_cache_mb": 9},
            "--validation_cache_mb=9: has no effect with --protocol=conventional; "
            "expected --protocol=mlrc or ablation",
        ),
        ({"tensorboard": False, "tensorboard_panels": 3}, "has no effect with --tensorboard=false"),
        ({"proxies_per_class": 0}, "--proxies_per_class=0: contradicts --loss=ccp/contrastive"),
        ({"loss": "nothing"}, "--loss=nothing: 'nothing'"),
        ({"loss": "contrastive/ccp"}, "--loss=contrastive/ccp"),
        (
            {"margin": 0.5},
            "--margin=0.5: --margin is not an option of --loss=ccp/contrastive; remove it",
        ),
        (
            {"loss": "contrastive", "pair_weight": 0.5},
            "--pair_weight=0.5: --pair_weight is not an option of --loss=contrastive; remove it",
        ),
        (
            {"loss": "ccp/xbm/contrastive", "pair_normalization": "unit"},
            "--pair_normalization=unit: --pair_normalization is not an option of --loss=ccp/xbm/contrastive",
        ),
        (
            {"loss": "mdr/contrastive", "normalization": "lipschitz"},
            "--normalization=lipschitz: contradicts --loss=mdr/contrastive, as mdr scales embeddings and "
            "evaluation would measure other distances than training; expected none or unit",
        ),
        (
            {"loss": "mdr/ccp/triplet", "normalization": "none"},
            "other distances than training; expected unit",
        ),
        (
            {"loss": "contrastive", "pool_size": 3},
            "--pool_size=3: has no effect with --loss=contrastive; expected ccp/... as --loss",
        ),
        ({"dataset": "mnist"}, "--dataset=mnist"),
        ({"dataset": "image_folder"}, "--data_dir"),
        ({"dataset": "image_folder", "data_dir": "/nonexistent"}, "--data_dir=/nonexistent"),
        ({"dataset": "cub"}, "--dataset=cub"),
        ({"backbone": "vgg"}, "--backbone=vgg"),
        ({"backbone_weights": "none.npz"}, "--backbone_weights=none.npz: expected an existing file"),
        (
            {"backbone_options": "stages=2"},
            "--backbone_options=stages=2: backbone",
        ),
        (
            {"backbone": "cifar_resnet", "backbone_options": "stages=0"},
            "--backbone_options=stages=0: stages=0: expected an integer, at least 1",
        ),
        (
            {"backbone": "cifar_resnet", "freeze_batch_norm": True},
            "--freeze_batch_norm: the weights are random; expected other --backbone_weights",
        ),
        (
            {"backbone": "resnet50", "backbone_weights": "random", "image_size": 16},
            "--image_size=16: expected at least 32 with --backbone=resnet50",
        ),
        (
            {"backbone": "resnet50", "backbone_weights": "random", "image_size": (64, 16)},
            "--image_size=64x16: expected at least 32 with --backbone=resnet50",
        ),
        ({"backbone_weights": "places"}, "--backbone_weights=places"),
    ],
)
def test_an_invalid_combination_is_one_line_that_names_the_flag(values, message):
    with pytest.raises(UserError) as error:
        check(configured(**values))
    assert message in str(error.value)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    "values",
    [
        {"monitor": "recall_at_4"},
        {"monitor": "precision_at_10", "precision_at": (10,)},
        {"loss": "original_contrastive", "margin": 0.5},
        {"loss": "contrastive", "monitor_split": "test", "validation_fraction": 0.0},
        {"fold": 2, "num_folds": 3},
        {"optimizer": "sgd", "momentum": 0.5},
        {"warm_up_epochs": 1, "warm_up_learning_rate": 1e-3},
        {"ccp_step_at_batch": True},
        {"ccp_normalized_embeddings": True, "pool_size": 2},
        {"protocol": "mlrc", "validation_cache_mb": 9},
        {"mixed_precision": "mixed_float16"},
        {"loss": "ccp/xbm/contrastive", "mine_pairs": True, "memory_size": 9},
        {"ccp_reset_rule": "patience", "ccp_patience": 2},
        {"loss": "mdr/ps/virtual_softmax/proxy_nca"},
        {"closed_set": "shuffled", "data_seed": 3, "label_noise": 0.4},
        {"sampler": "random", "batch_size": 1000, "preprocessing": "mnist"},
        {"sampler": "class_uniform", "preprocessing": "cifar", "horizontal_flip": False},
        {"representative_lifetime": 5, "augment_representatives": True},
    ],
)
def test_valid_combinations_stay_valid_once_resolved(values):
    config = configured(**values)
    check(config)
    check(resolve(config))


def test_backbones_without_their_weights_name_the_flag(tmp_path, monkeypatch):
    monkeypatch.setenv("KERAS_HOME", str(tmp_path))
    with pytest.raises(UserError, match="--backbone=bn_inception: .*bn_inception_imagenet.npz in"):
        check(configured(backbone="bn_inception"))
    check(configured(backbone="bn_inception", backbone_weights="random"))


@pytest.mark.parametrize(
    "values, expected",
    [
        ({}, []),
        ({"monitor_split": "test"}, ["--monitor_split=test chooses the best epoch by the test classes"]),
        (
            {"protocol": "conventional"},
            ["--protocol=conventional chooses the best epoch by the test classes"],
        ),
        ({"check_counts": False}, ["--check_counts=false accepts a part of a data set"]),
        ({"skip_bad_images": True}, ["--skip_bad_images may leave out images of a published data set"]),
        ({"skip_bad_images": True, "dataset": "image_folder"}, []),
    ],
)
def test_options_that_make_results_incomparable_are_warned_about(values, expected):
    found = warnings(configured(**values))
    assert len(found) == len(expected)
    for warning, beginning in zip(found, expected):
        assert warning.startswith(beginning)


@pytest.mark.parametrize(
    "values",
    [
        {},
        {"loss": "proxy_nca"},
        {"loss": "triplet", "proxies_per_class": 2, "proxy_anchor": True, "triplets": "semi_hard"},
        {"strategy": "multi_worker", "cluster": "slurm", "run_dir": "runs/sharded"},
    ],
    ids=str,
)
def test_proxies_may_be_sharded_over_replicas(values):
    check(configured(**{"strategy": "mirrored", "shard_proxies": True, **values}))


@pytest.mark.parametrize(
    "values, message",
    [
        ({"strategy": "one"}, "--shard_proxies=true: has no effect with --strategy=one"),
        ({"strategy": "tpu"}, "--shard_proxies=true: has no effect with --strategy=tpu"),
        ({"jit_compile": True}, "contradicts --jit_compile"),
        ({"optimizer": "lamb"}, "contradicts --optimizer=lamb"),
        ({"optimizer": "adafactor"}, "contradicts --optimizer=adafactor"),
    ],
    ids=str,
)
def test_flags_that_contradict_sharded_proxies(values, message):
    with pytest.raises(ConfigError, match=f"{message}.*expected"):
        check(configured(**{"strategy": "mirrored", "shard_proxies": True, **values}))


def test_an_option_without_effect_may_be_allowed():
    config = configured(momentum=0.5, data_seed=1)
    check_flags(config, may_have_no_effect={"momentum", "data_seed"})
    with pytest.raises(ConfigError, match="--data_seed=1: has no effect"):
        check_flags(config, may_have_no_effect={"momentum"})


def test_only_several_workers_need_a_cluster(monkeypatch):
    monkeypatch.delenv("TF_CONFIG", raising=False)
    with pytest.raises(ConfigError, match="--strategy=multi_worker: .* is not set"):
        check(configured(strategy="multi_worker"))
    with pytest.raises(ConfigError, match="--strategy=multi_worker: there is no --run_dir"):
        check(configured(strategy="multi_worker", cluster="slurm"))
    check(ExperimentConfig())


@pytest.mark.parametrize("values", [{"logical_cpus": 2}, {"cluster": "slurm"}])
def test_flags_of_other_strategies_have_no_effect(values):
    with pytest.raises(ConfigError, match="has no effect with --strategy=one"):
        check_flags(configured(**values))


def run_on_cub(folder: Path, **values: Any) -> ExperimentConfig:
    """The configuration of a run on a part of CUB."""
    data_dir = str(miniatures.write_cub(folder / "cub"))
    return resolve(configured(dataset="cub", data_dir=data_dir, check_counts=False, **values))


@pytest.mark.parametrize(
    "values", [{}, {"crop_to_box": True}, {"skip_bad_images": True}, {"closed_set": "shuffled"}]
)
def test_options_of_the_images_of_a_run_do_not_hold_for_another_data_set(tmp_path, values):
    config = with_other_evaluation(run_on_cub(tmp_path, **values), dataset="emoji")
    source = config.source
    assert (source.dataset, source.data_dir, source.check_counts) == ("emoji", None, True)
    assert (source.crop_to_box, source.skip_bad_images, config.split.closed_set) == (False, False, "off")


def test_counts_stay_unchecked_for_another_published_data_set(tmp_path):
    other = str(miniatures.write_inshop(tmp_path / "inshop"))
    source = with_other_evaluation(run_on_cub(tmp_path), dataset="inshop", data_dir=other).source
    assert (source.dataset, source.data_dir, source.check_counts) == ("inshop", other, False)


def test_an_evaluation_without_changes(tmp_path):
    config = run_on_cub(tmp_path)
    assert with_other_evaluation(config) == config
    assert with_other_evaluation(config, dataset="cub", pca_dim=3) == config.replace(pca_dim=3)
    with pytest.raises(ConfigError, match="--pca_dim=129: expected at most --embedding_size=128"):
        with_other_evaluation(config, pca_dim=129)
