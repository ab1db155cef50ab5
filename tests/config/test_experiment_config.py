"""The configuration as a whole: names, defaults, copies, dictionaries."""

from __future__ import annotations

import dataclasses
import json
import re

import pytest

from ccp_dml.config import ExperimentConfig
from ccp_dml.config.checks import check
from ccp_dml.config.protocols import resolve
from ccp_dml.errors import ConfigError
from ccp_dml.losses import registry as losses
from ccp_dml.options import options_of

# Flags that are part of the interface: their names stay.
FIXED_NAMES = """
dataset data_dir loss backbone backbone_weights embedding_size image_size classes_per_batch
samples_per_class steps_per_epoch max_epochs learning_rate weight_decay seed run_dir overwrite monitor
patience proxies_per_class pool_size ccp_lambda ccp_lambda_decay ccp_patience ccp_random_init pair_weight
proxy_weight positive_margin negative_margin margin mixed_precision jit_compile
""".split()


def configured(**values) -> ExperimentConfig:
    return ExperimentConfig.from_dict(values)


def test_names_are_unique_and_include_the_fixed_ones():
    names = [declared.name for declared, _ in ExperimentConfig().items()]
    assert len(names) == len(set(names))
    assert set(FIXED_NAMES) <= set(names)


def test_conditions_name_options_that_exist():
    names = {declared.name for declared, _ in ExperimentConfig().items()}
    for declared, _ in ExperimentConfig().items():
        assert set(declared.only_with) <= names - {declared.name}, declared.name


def test_defaults_are_valid_and_stay_valid_once_resolved():
    config = ExperimentConfig()
    check(config)
    check(resolve(config))
    assert resolve(resolve(config)) == resolve(config)


def test_every_default_is_valid():
    for declared, value in ExperimentConfig().items():
        assert value == declared.default
        declared.check(value)
        assert declared.parse(declared.format(value)) == value, declared.name


def test_every_help_text_is_a_sentence():
    for declared, _ in ExperimentConfig().items():
        assert declared.help.endswith("."), declared.name


def test_groups_are_frozen():
    with pytest.raises(dataclasses.FrozenInstanceError):
        ExperimentConfig().source.dataset = "cub"  # type: ignore[misc]


def test_a_copy_shares_the_groups_that_do_not_change():
    config = configured(seed=3)
    changed = config.replace(dataset="cub")
    assert (changed.source.dataset, changed.run.seed) == ("cub", 3)
    assert changed.run is config.run
    assert config.source.dataset == "emoji"


def test_dictionary_round_trip_through_json():
    config = configured(dataset="cub", recall_at=(1, 10), margin=0.5, overwrite=True)
    assert ExperimentConfig.from_dict(json.loads(json.dumps(config.to_dict()))) == config


def test_an_unknown_name_is_refused():
    with pytest.raises(ConfigError, match="--epochs: unknown flag"):
        configured(epochs=3)


@pytest.mark.parametrize(
    "values, message",
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
        ({"closed_set": "on"}, "--closed_set=on: expected one of off, shuffled, in_order"),
        ({"label_noise": 1.0}, "--label_noise=1: expected a number, at least 0 and below 1"),
        ({"sampler": "all"}, "--sampler=all: expected one of m_per_class, random, class_uniform"),
        ({"frozen_layers": ("(",)}, "--frozen_layers=(: expected regular expressions"),
        ({"protocol": "paper"}, "--protocol=paper: expected one of mlrc, conventional, ablation"),
        ({"fold": "some"}, "--fold=some: expected an integer, at least 1"),
        ({"fold": 0}, "--fold=0: expected an integer, at least 1"),
        ({"fold": True}, "--fold=True: expected an integer, at least 1"),
        ({"num_folds": 1}, "--num_folds=1: expected an integer, at least 2"),
        ({"repeat": 0}, "--repeat=0: expected an integer, at least 1"),
        ({"pca_dim": 0}, "--pca_dim=0: expected an integer, at least 1"),
        ({"warm_up_epochs": -0.5}, "--warm_up_epochs=-0.5: expected a number, at least 0"),
    ],
)
def test_a_value_out_of_range_is_an_error_that_names_the_flag(values, message):
    with pytest.raises(ConfigError, match=f"^{re.escape(message)}"):
        configured(**values)


def test_the_options_of_the_loss_are_the_parameters_of_all_losses():
    specs = {**losses.LOSSES, **losses.WRAPPERS}.values()
    parameters = {parameter.name for spec in specs for parameter in spec.parameters}
    assert parameters == {declared.name for declared in options_of(ExperimentConfig().loss)} - {"loss"}
