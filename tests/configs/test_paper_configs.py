"""The methods of the paper on each data set, configs/DATASET/METHOD.cfg, have the paper's values."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from ccp_dml.config import command_line
from ccp_dml.config.checks import check, check_flags
from ccp_dml.config.experiment_config import ExperimentConfig
from ccp_dml.config.protocols import resolve

FOLDER = Path(__file__).parents[2] / "configs"
DATASETS = ("cub", "cars196", "inshop", "sop", "emoji")
CONTRASTIVE = ("positive_margin", "negative_margin")
MULTI_SIMILARITY = ("alpha", "beta", "threshold")
SOFT_TRIPLE = ("scale", "temperature", "center_weight", "margin")
# The setting of the four data sets of the paper: its supplement and, for beta_2, the authors' code.
SETTING = {
    "backbone": "bn_inception",
    "backbone_weights": "imagenet",
    "pooling": "average",
    "embedding_size": 128,
    "normalization": "lipschitz",
    "image_size": 227,
    "test_shorter_side": 256,
    "crop_area_min": 0.16,
    "crop_area_max": 1,
    "crop_aspect_min": 0.75,
    "crop_aspect_max": 4 / 3,
    "horizontal_flip": True,
    "preprocessing": "dml",
    "protocol": "mlrc",
    "num_folds": 4,
    "fold": "all",
    "repeat": 3,
    "monitor": "map_at_r",
    "monitor_split": "validation",
    "restore_best": True,
    "patience": 60,
    "optimizer": "adam",
    "learning_rate": 1e-5,
    "learning_rate_schedule": "constant",
    "beta_1": 0.9,
    "beta_2": 0.999,
    "weight_decay": 1e-4,
    "clip_norm": 10,
    "clip_value": 10,
    "freeze_batch_norm": True,
}
STEPS_PER_EPOCH = {"cub": 25, "cars196": 25, "inshop": 250, "sop": 250}
PROXIES = {
    "classes_per_batch": 32,
    "samples_per_class": 1,
    "warm_up_epochs": 1,
    "proxy_learning_rate_multiplier": 100,
}
# Values of the data sets in the order of DATASETS.
VALUES: dict[tuple[str, ...], tuple[tuple[Any, ...], ...]] = {
    CONTRASTIVE: ((0, 0.3841), (0.2652, 0.5409), (0.2858, 0.513), (0.2858, 0.513), (0, 0.3841)),
    ("margin",): ((0.0961,), (0.119,), (0.0451,), (0.0451,), (0.0961,)),
    MULTI_SIMILARITY: ((2, 40, 0.5), (14.35, 75.83, 0.66), (8.49, 57.38, 0.41), (2, 40, 0.5), (2, 40, 0.5)),
    SOFT_TRIPLE: (
        (20, 0.1, 0.2, 0.01),
        (17.69, 19.18, 0.0669, 0.3588),
        (20, 0.1, 0.2, 0.01),
        (100, 47.9, 0.2, 0.3145),
        (20, 0.1, 0.2, 0.01),
    ),
    ("proxies_per_class", "pool_size"): ((8, 12), (8, 12), (4, 7), (4, 7), (4, 5)),
    ("memory_size", "start_step"): ((800, 1000), (800, 1000), (12800, 1000), (44800, 1000), (800, 100)),
}
CCP = {"pair_weight": 0.1, "proxy_weight": 1, "ccp_lambda": 2e-4, "ccp_patience": 3}
XBM = {"pair_weight": 1, "memory_weight": 1}
# --loss, the values common to all data sets, and the flags with values above.
METHODS: dict[str, tuple[str, dict[str, Any], tuple[tuple[str, ...], ...]]] = {
    "c1": ("original_contrastive", {"margin": 0.5}, ()),
    "c2": ("contrastive", {}, (CONTRASTIVE,)),
    "ms": ("multi_similarity", {}, (MULTI_SIMILARITY,)),
    "triplet": ("triplet", {}, (("margin",),)),
    "proxy_anchor": ("proxy_anchor", PROXIES | {"margin": 0.1, "alpha": 32}, ()),
    "proxy_nca": ("proxy_nca", PROXIES | {"temperature": 0.11}, ()),
    "soft_triple": ("soft_triple", PROXIES | {"proxies_per_class": 10}, (SOFT_TRIPLE,)),
}
for base in ("c1", "c2", "ms", "triplet"):
    path, common, names = METHODS[base]
    METHODS[f"{base}_ccp"] = (f"ccp/{path}", common | CCP, (*names, ("proxies_per_class", "pool_size")))
for base in ("c1", "c2"):
    path, common, names = METHODS[base]
    METHODS[f"{base}_xbm"] = (f"xbm/{path}", common | XBM, (*names, ("memory_size", "start_step")))


def read(name: str) -> ExperimentConfig:
    return command_line.read([f"--flagfile={FOLDER / name}.cfg"])


@pytest.mark.parametrize("dataset", DATASETS)
def test_all_methods_of_the_paper_are_there(dataset):
    assert {file.stem for file in (FOLDER / dataset).glob("*.cfg")} == set(METHODS)
    assert len(METHODS) == 13


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("dataset", DATASETS)
def test_each_is_valid_and_has_the_hyperparameters_of_the_paper(dataset, method):
    config = read(f"{dataset}/{method}")
    check(config.replace(dataset="emoji", backbone="efficientnet_lite0"))
    loss, expected, looked_up = METHODS[method]
    for names in looked_up:
        expected = expected | dict(zip(names, VALUES[names][DATASETS.index(dataset)], strict=True))
    expected = {"classes_per_batch": 8, "samples_per_class": 4, "warm_up_epochs": 0} | expected
    found = config.to_dict()
    assert {flag: found[flag] for flag in expected} == expected
    assert (found["loss"], found["dataset"]) == (loss, dataset)


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("dataset", STEPS_PER_EPOCH)
def test_each_has_the_setting_of_the_paper(dataset, method):
    config = read(f"{dataset}/{method}")
    check_flags(config)
    found = resolve(config).to_dict()
    expected = SETTING | {"steps_per_epoch": STEPS_PER_EPOCH[dataset]}
    assert {flag: found[flag] for flag in expected} == expected
    assert found["max_epochs"] >= 10_000


@pytest.mark.parametrize("method", METHODS)
def test_a_method_on_emoji_trains_as_long_as_the_others(method):
    found, main = read(f"emoji/{method}").to_dict(), read("emoji").to_dict()
    for flag in ("backbone", "learning_rate", "steps_per_epoch", "max_epochs", "weight_decay", "repeat"):
        assert found[flag] == main[flag]


@pytest.mark.parametrize("dataset", DATASETS)
def test_the_method_of_a_data_set_is_c2_ccp(dataset):
    assert read(f"{dataset}/c2_ccp") == read(dataset)


def test_the_run_directory_names_data_set_and_method():
    config = command_line.parse([f"--flagfile={FOLDER}/emoji/soft_triple.cfg"])
    assert config.run.run_dir is not None
    assert config.run.run_dir.startswith("runs/emoji-soft_triple-")
