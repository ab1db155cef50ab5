"""The configuration: values, combinations, round trips, and agreement with the parts that it configures."""

from __future__ import annotations

import ast
import dataclasses
import json
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ccp_dml.config import ExperimentConfig, command_line, flagfiles
from ccp_dml.config.data_source import data_source
from ccp_dml.config.fields import flags_of
from ccp_dml.config.sections import DataConfig
from ccp_dml.config.values import (
    LARGEST_INTEGER,
    LARGEST_NUMBER,
    Choice,
    Integer,
    Integers,
    Kind,
    Number,
    Patterns,
    Steps,
    Switch,
    SwitchedChoice,
    Text,
)
from ccp_dml.data.catalog import Source
from ccp_dml.errors import ConfigError, UserError
from ccp_dml.losses import registry as losses

FIXED_NAMES = """
dataset data_dir loss backbone backbone_weights embedding_size image_size classes_per_batch
samples_per_class steps_per_epoch max_epochs learning_rate weight_decay seed run_dir overwrite monitor
patience proxies_per_class pool_size ccp_lambda ccp_lambda_decay ccp_patience ccp_random_init pair_weight
proxy_weight positive_margin negative_margin margin mixed_precision jit_compile
""".split()


def configured(**values) -> ExperimentConfig:
    return ExperimentConfig.from_dict(values)


def names() -> list[str]:
    return [flag.name for flag, _ in ExperimentConfig().items()]


def test_names_are_unique_and_hold_the_fixed_ones():
    assert len(names()) == len(set(names()))
    assert set(FIXED_NAMES) <= set(names())


def test_every_field_of_a_source_follows_its_flag():
    values = {
        "data_dir": "/images",
        "prepared_dir": "/prepared",
        "train_fraction": 0.25,
        "download": True,
        "check_counts": False,
        "skip_bad_images": True,
        "crop_to_box": True,
        "prepared_shorter_side": 256,
    }
    fields = {field.name: field.default for field in dataclasses.fields(Source)}
    assert set(fields) == {"name", *values}
    assert data_source(configured(dataset="cub", **values).data) == Source("cub", **values)
    assert data_source(DataConfig()) == Source(DataConfig.dataset)


def test_defaults_are_valid_and_stay_valid_once_resolved():
    config = ExperimentConfig()
    config.validate()
    config.resolve().validate()
    assert config.resolve().resolve() == config.resolve()


def test_every_default_is_of_its_kind():
    for flag, value in ExperimentConfig().items():
        assert value == flag.default
        flag.check(value)
        assert flag.parse(flag.format(value)) == value, flag.name


def test_sections_are_frozen():
    with pytest.raises(dataclasses.FrozenInstanceError):
        ExperimentConfig().data.dataset = "cub"  # type: ignore[misc]


def is_valid(kind: Kind, value) -> bool:
    try:
        kind.check(value)
    except ValueError:
        return False
    return True


@settings(max_examples=100, deadline=None, derandomize=True)
@given(
    st.one_of(
        st.tuples(st.just(Number()), st.floats(-LARGEST_NUMBER, LARGEST_NUMBER)),
        st.tuples(st.just(Integer(-5)), st.integers(-5, LARGEST_INTEGER)),
        st.tuples(st.just(Integers()), st.sets(st.integers(1, 99), max_size=5).map(sorted).map(tuple)),
        st.tuples(st.just(Text()), st.text(min_size=1).filter(lambda text: is_valid(Text(), text))),
        st.tuples(st.just(Steps()), st.sets(st.integers(0), min_size=2, max_size=2).map(sorted).map(tuple)),
        st.tuples(st.just(Switch()), st.booleans()),
        st.tuples(
            st.just(Patterns()), st.lists(st.from_regex(r"[a-z_.][a-z0-9_.]{0,4}", fullmatch=True)).map(tuple)
        ),
    )
)
def test_text_gives_back_the_exact_value(kind_and_value):
    kind, value = kind_and_value
    assert kind.parse(kind.format(value)) == value


@pytest.mark.parametrize(
    "kind, text",
    [
        (Integer(0), "1.0"),
        (Integer(0), ""),
        (Integer(0, 5), "6"),
        (Integer(0), "2147483648"),
        (Number(), "3.5e38"),
        (Integers(), "1,2147483648"),
        (Number(), "nan"),
        (Number(), "inf"),
        (Number(), "1,5"),
        (Number(above=0), "0"),
        (Number(low=0, below=1), "1"),
        (Switch(), "maybe"),
        (Choice(("a", "b")), "c"),
        (Integers(), "1,1"),
        (Integers(), "1,,2"),
        (Integers(), "0,1"),
        (Text(), " "),
        (Steps(), "5:5"),
        (Steps(), "5"),
        (Steps(), "-1:5"),
        (Steps(), "1:2:3"),
        (Patterns(), "stem ("),
    ],
)
def test_text_of_no_valid_value_is_refused(kind, text):
    with pytest.raises(ValueError, match="^expected "):
        kind.parse(text)


@pytest.mark.parametrize(
    "values",
    [
        {},
        {"loss": "contrastive", "negative_margin": 0.1 + 0.2, "overwrite": True, "horizontal_flip": False},
        {"frozen_layers": ("stem", r"block\d_"), "initial_weights": "runs/fold_{fold}", "fold": 1},
        {"pool_size": 3, "ccp_random_init": True, "pair_normalization": "unit", "proxy_anchor": False},
        {"data_dir": "/images of #1/ünd, more=", "recall_at": (), "map_at": (1, 10, 100)},
        {"mixed_precision": "mixed_float16", "learning_rate": 1e-17, "ccp_max_iterations": 3},
        {"closed_set": "in_order", "sampler": "random", "batch_size": 7, "preprocessing": "cifar"},
    ],
)
def test_flagfile_round_trip(tmp_path, values):
    config = configured(**values)
    file = tmp_path / "config.cfg"
    file.write_text(flagfiles.to_flagfile(config), encoding="utf-8")
    assert command_line.read([f"--flagfile={file}"]) == config


def test_dictionary_round_trip_through_json():
    config = configured(dataset="cub", recall_at=(1, 10), margin=0.5, overwrite=True)
    assert ExperimentConfig.from_dict(json.loads(json.dumps(config.to_dict()))) == config


def test_an_unknown_name_is_refused():
    with pytest.raises(ConfigError, match="--epochs: unknown flag"):
        configured(epochs=3)


@pytest.mark.parametrize(
    "values, named",
    [
        ({"seed": -1}, "--seed=-1: expected an integer, at least 0"),
        ({"seed": 1.5}, "--seed=1.5"),
        ({"seed": True}, "--seed=True"),
        ({"overwrite": 1}, "--overwrite"),
        ({"dataset": ""}, "--dataset="),
        ({"learning_rate": float("nan")}, "--learning_rate=nan"),
        ({"learning_rate": 0.0}, "--learning_rate=0: expected a number, above 0"),
        ({"crop_area_min": 1.5}, "--crop_area_min=1.5: expected a number, above 0 and at most 1"),
        ({"pooling": "sum"}, "--pooling=sum: expected one of average, max, both"),
        ({"recall_at": (4, 2)}, "--recall_at=4,2: expected increasing"),
        (
            {"crop_area_min": 0.9, "crop_area_max": 0.5},
            "--crop_area_min=0.9: expected at most --crop_area_max=0.5",
        ),
        (
            {"image_size": 64, "test_shorter_side": 60},
            "--test_shorter_side=60: expected at least --image_size=64",
        ),
        ({"fold": 1, "validation_fraction": 0.2}, "--validation_fraction=0.2 contradicts --fold=1"),
        ({"fold": 5, "num_folds": 4}, "--fold=5: expected at most --num_folds=4"),
        ({"num_folds": 4}, "--num_folds=4 needs --fold"),
        ({"closed_set": "on"}, "--closed_set=on: expected one of off, shuffled, in_order"),
        ({"closed_set": "shuffled", "fold": 1}, "--fold=1 contradicts --closed_set=shuffled"),
        ({"closed_set": "in_order", "validation_fraction": 0.2}, "--validation_fraction=0.2 contradicts"),
        (
            {"closed_set": "shuffled", "train_fraction": 0.7},
            "--train_fraction=0.7: it does nothing with --closed_set=shuffled; expected --closed_set=off",
        ),
        ({"label_noise": 1.0}, "--label_noise=1: expected a number, at least 0 and below 1"),
        ({"data_seed": 1}, "--data_seed=1: it does nothing without --closed_set or --label_noise"),
        ({"data_seed": 1, "closed_set": "in_order"}, "--data_seed=1: it does nothing without"),
        ({"sampler": "all"}, "--sampler=all: expected one of m_per_class, random, class_uniform"),
        (
            {"sampler": "random", "samples_per_class": 2},
            "--samples_per_class=2: it does nothing with --sampler=random; expected --sampler=m_per_class",
        ),
        (
            {"sampler": "class_uniform", "classes_per_batch": 9},
            "--classes_per_batch=9: it does nothing with --sampler=class_uniform",
        ),
        (
            {"batch_size": 64},
            "--batch_size=64: it does nothing with --sampler=m_per_class; "
            "expected --sampler=random or class_uniform",
        ),
        (
            {"sampler": "random", "representative_lifetime": 3},
            "--representative_lifetime=3: it does nothing with --sampler=random",
        ),
        (
            {"representative_lifetime": 3, "samples_per_class": 1},
            "--samples_per_class=1: expected at least 2 with --representative_lifetime=3",
        ),
        (
            {"augment_representatives": True},
            "--augment_representatives=true: it does nothing with --representative_lifetime=0; "
            "expected at least 1",
        ),
        (
            {"preprocessing": "cifar", "crop_area_min": 0.5},
            "--crop_area_min=0.5: it does nothing with --preprocessing=cifar; expected --preprocessing=dml",
        ),
        (
            {"preprocessing": "mnist", "horizontal_flip": False},
            "--horizontal_flip=false: it does nothing with --preprocessing=mnist; "
            "expected --preprocessing=dml or cifar",
        ),
        (
            {"preprocessing": "mnist", "test_shorter_side": 300},
            "--test_shorter_side=300: it does nothing with --preprocessing=mnist",
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
            "--ccp_reset_rule=staleness contradicts --noccp_use_representative_proxy",
        ),
        ({"warm_up_learning_rate": 0.1}, "--warm_up_learning_rate=0.1 needs --warm_up_epochs"),
        ({"ema_decay": 0.9}, "--ema_decay=0.9: it does nothing without the averages"),
        ({"momentum": 0.5}, "--momentum=0.5: it does nothing with --optimizer=adam"),
        (
            {"plateau_factor": 0.1},
            "--plateau_factor=0.1: it does nothing with --learning_rate_schedule=constant",
        ),
        (
            {"ccp_patience": 5, "ccp_reset_rule": "fixed"},
            "--ccp_patience=5: it does nothing with --ccp_reset_rule",
        ),
        (
            {"ccp_normalized_embeddings": True, "pool_size": 1},
            "--ccp_normalized_embeddings=true: it does nothing with --pool_size=1; expected at least 2",
        ),
        (
            {"ccp_step_at_batch": True, "chunk_size": 5},
            "--chunk_size=5: it does nothing with --ccp_step_at_batch=true; "
            "expected --ccp_step_at_batch=false",
        ),
        (
            {"monitor_split": "test", "validation_cache_mb": 9},
            "--validation_cache_mb=9: it does nothing with --monitor_split=test; "
            "expected --monitor_split=validation",
        ),
        (
            {"protocol": "conventional", "validation_cache_mb": 9},
            "--validation_cache_mb=9: it does nothing with --protocol=conventional; "
            "expected --protocol=mlrc or ablation",
        ),
        ({"tensorboard": False, "tensorboard_panels": 3}, "it does nothing with --tensorboard=false"),
        ({"proxies_per_class": 0}, "--proxies_per_class=0 contradicts --loss=ccp/contrastive"),
        ({"loss": "nothing"}, "--loss=nothing: 'nothing'"),
        ({"loss": "contrastive/ccp"}, "--loss=contrastive/ccp"),
        (
            {"margin": 0.5},
            "--margin=0.5: expected it to be left out, as no loss in --loss=ccp/contrastive takes it",
        ),
        ({"loss": "contrastive", "pair_weight": 0.5}, "--pair_weight=0.5: expected it to be left out"),
        (
            {"loss": "ccp/xbm/contrastive", "pair_normalization": "unit"},
            "--pair_normalization=unit: expected it to be left out",
        ),
        (
            {"loss": "mdr/contrastive", "normalization": "lipschitz"},
            "--normalization=lipschitz contradicts --loss=mdr/contrastive: it would be evaluated in another "
            "way than trained, as mdr scales embeddings; expected none or unit",
        ),
        ({"loss": "mdr/ccp/triplet", "normalization": "none"}, "as mdr scales embeddings; expected unit"),
        ({"loss": "contrastive", "pool_size": 3}, "--pool_size=3: expected it with ccp/..."),
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
            "--backbone_options=stages=0: stages is 0; at least 1",
        ),
        (
            {"backbone": "cifar_resnet", "freeze_batch_norm": True},
            "--freeze_batch_norm: expected weights that are loaded",
        ),
        (
            {"backbone": "resnet50", "backbone_weights": "random", "image_size": 16},
            "--image_size=16: expected at least 32 with --backbone=resnet50",
        ),
        ({"frozen_layers": ("(",)}, "--frozen_layers=(: expected regular expressions"),
        ({"backbone_weights": "places"}, "--backbone_weights=places"),
    ],
)
def test_validation_names_the_flag(values, named):
    with pytest.raises(UserError) as error:
        configured(**values).validate()
    assert named in str(error.value)


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
        {"loss": "ccp/xbm/contrastive", "mine_pairs": True, "memory_size": 9, "ccp_patience": 2},
        {"loss": "mdr/ps/virtual_softmax/proxy_nca"},
        {"closed_set": "shuffled", "data_seed": 3, "label_noise": 0.4},
        {"sampler": "random", "batch_size": 1000, "preprocessing": "mnist"},
        {"sampler": "class_uniform", "preprocessing": "cifar", "horizontal_flip": False},
        {"representative_lifetime": 5, "augment_representatives": True},
    ],
)
def test_valid_combinations_stay_valid_once_resolved(values):
    config = configured(**values)
    config.validate()
    config.resolve().validate()


@pytest.mark.parametrize(
    "values, resolved",
    [
        ({}, {"validation_fraction": 0.25, "num_folds": None, "backbone_weights": "imagenet"}),
        ({"fold": 1}, {"validation_fraction": None, "num_folds": 4}),
        ({"monitor_split": "test"}, {"validation_fraction": 0.0}),
        ({"image_size": 227}, {"test_shorter_side": 256}),
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
        ({"warm_up_epochs": 1, "learning_rate": 0.5}, {"warm_up_learning_rate": 0.5}),
        ({"loss": "ccp/contrastive"}, {"normalization": "lipschitz"}),
        ({"loss": "mdr/contrastive"}, {"normalization": "none"}),
        ({"loss": "mdr/contrastive", "normalization": "unit"}, {"normalization": "unit"}),
        ({"loss": "mdr/ccp/contrastive"}, {"normalization": "unit"}),
    ],
)
def test_what_resolving_fills_in(values, resolved):
    found = configured(**values).resolve().to_dict()
    assert {name: found[name] for name in resolved} == resolved


def test_backbones_without_their_weights_name_the_flag(tmp_path, monkeypatch):
    monkeypatch.setenv("KERAS_HOME", str(tmp_path))
    with pytest.raises(UserError, match="--backbone=bn_inception: .*bn_inception_imagenet.npz in"):
        configured(backbone="bn_inception").validate()
    configured(backbone="bn_inception", backbone_weights="random").validate()


def test_folders_become_absolute(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert configured(data_dir="images").resolve().data.data_dir == str(tmp_path / "images")


def test_only_monitoring_the_test_classes_is_warned_about():
    assert ExperimentConfig().warnings() == ()
    (warning,) = configured(monitor_split="test").warnings()
    assert warning.startswith("--monitor_split=test")


def test_loss_flags_are_the_parameters_of_the_losses():
    specs = {**losses.LOSSES, **losses.WRAPPERS}.values()
    parameters = {parameter for spec in specs for parameter in spec.parameters}
    assert parameters == {flag.name for flag in flags_of(ExperimentConfig().loss)} - {"loss"}


def test_a_bare_switch_of_a_choice_means_its_on_value():
    kind = SwitchedChoice(("none", "some", "all"), on="all", off="none")
    assert [kind.parse(text) for text in ("true", "false", "some")] == ["all", "none", "some"]


def test_absl_flags_are_known_to_the_configuration_only():
    package = Path(command_line.__file__).parents[1]
    for file in package.rglob("*.py"):
        if file.parent.name != "config":
            imported = [
                node for node in ast.walk(ast.parse(file.read_text())) if isinstance(node, ast.ImportFrom)
            ]
            absl = [alias.name for node in imported if node.module == "absl" for alias in node.names]
            assert "flags" not in absl, file
            assert "absl.flags" not in file.read_text(), file
