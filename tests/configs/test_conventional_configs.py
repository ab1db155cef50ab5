"""The conventional protocol, configs/conventional/BACKBONE/DATASET/METHOD.cfg, has the authors' values."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from ccp_dml.config import command_line
from ccp_dml.config.checks import check_flags, warnings
from ccp_dml.config.experiment_config import ExperimentConfig
from ccp_dml.config.protocols import members, resolve

FOLDER = Path(__file__).parents[2] / "configs" / "conventional"
SMALL, LARGE = ("cub", "cars196"), ("inshop", "sop")
SETTING = {
    "protocol": "conventional",
    "monitor_split": "test",
    "monitor": "precision_at_1",
    "repeat": 3,
    "pooling": "both",
    "embedding_size": 512,
    "normalization": "lipschitz",
    "image_size": 227,
    "backbone_weights": "imagenet",
    "freeze_batch_norm": True,
    "optimizer": "adam",
    "learning_rate_schedule": "plateau",
    "plateau_factor": 0.5,
    "min_learning_rate": 1e-6,
    "warm_up_epochs": 0,
    "clip_norm": 10,
    "clip_value": 10,
    "max_epochs": 10_000,
}
BACKBONES = {
    "bn_inception": {"classes": 32, "weight_decay": 1e-4, "patience": 15, "memory": 50},
    "resnet50": {"classes": 28, "weight_decay": 4e-4, "patience": 10, "memory": 25},
}
METHODS: dict[str, tuple[str, dict[str, Any]]] = {
    "c1": ("original_contrastive", {"margin": 0.5}),
    "c2": ("contrastive", {"positive_margin": 0, "negative_margin": 1}),
    "ms": ("multi_similarity", {"alpha": 2, "beta": 40, "threshold": 0.5}),
    "triplet": ("triplet", {"margin": 0.2}),
    "proxy_anchor": ("proxy_anchor", {"margin": 0.1, "alpha": 32, "proxy_learning_rate_multiplier": 100}),
    "proxy_nca": ("proxy_nca", {"temperature": 0.11, "proxy_learning_rate_multiplier": 100}),
    "soft_triple": ("soft_triple", {"proxies_per_class": 10, "proxy_learning_rate_multiplier": 100}),
}
TRAINED_PROXIES = ("proxy_anchor", "proxy_nca", "soft_triple")
for base in ("c1", "c2", "ms", "triplet"):
    METHODS[f"{base}_ccp"] = (f"ccp/{METHODS[base][0]}", METHODS[base][1] | {"ccp_monitor": "precision_at_1"})
for base in ("c1", "c2"):
    METHODS[f"{base}_xbm"] = (f"xbm/{METHODS[base][0]}", METHODS[base][1] | {"start_step": 1000})


def read(backbone: str, dataset: str, method: str) -> ExperimentConfig:
    return command_line.read([f"--flagfile={FOLDER / backbone / dataset / method}.cfg"])


def batch(dataset: str, backbone: str, method: str) -> tuple[int, int]:
    """Classes of a batch, and samples of each."""
    classes = BACKBONES[backbone]["classes"]
    if method not in TRAINED_PROXIES:
        return classes, 4
    return min(4 * classes, {"cub": 100, "cars196": 96}.get(dataset, 4 * classes)), 1


def memory_size(dataset: str, backbone: str) -> int:
    batches = {"inshop": 400, "sop": 1400}.get(dataset, BACKBONES[backbone]["memory"])
    return batches * 4 * BACKBONES[backbone]["classes"]


@pytest.mark.parametrize("backbone", BACKBONES)
@pytest.mark.parametrize("dataset", [*SMALL, *LARGE])
def test_all_methods_are_there(dataset, backbone):
    assert {file.stem for file in (FOLDER / backbone / dataset).glob("*.cfg")} == set(METHODS)


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("backbone", BACKBONES)
@pytest.mark.parametrize("dataset", [*SMALL, *LARGE])
def test_each_is_valid_and_has_the_values_of_the_authors(dataset, backbone, method):
    config = read(backbone, dataset, method)
    check_flags(config)
    complete = resolve(config)
    found = complete.to_dict()
    loss, loss_values = METHODS[method]
    large, authors = dataset in LARGE, BACKBONES[backbone]
    expected = SETTING | loss_values
    expected |= {"dataset": dataset, "backbone": backbone, "loss": loss}
    expected |= {"weight_decay": authors["weight_decay"]}
    expected |= {"steps_per_epoch": 250, "learning_rate": 1e-4} if large else {}
    expected |= {} if large else {"steps_per_epoch": 25, "learning_rate": 1e-5}
    expected |= {"patience": authors["patience"] if large else 15, "plateau_patience": 3 if large else 4}
    if method.endswith("ccp"):
        expected |= {"proxies_per_class": 4 if large else 8, "pool_size": 7 if large else 12}
    if method.endswith("xbm"):
        expected |= {"memory_size": memory_size(dataset, backbone)}
    assert {flag: found[flag] for flag in expected} == expected
    assert (found["classes_per_batch"], found["samples_per_class"]) == batch(dataset, backbone, method)
    assert len(members(complete)) == 3


def test_a_warning_says_that_the_score_flatters():
    (warning,) = warnings(read("resnet50", "cub", "c2_ccp"))
    assert warning.startswith("--protocol=conventional chooses the best epoch by the test classes")
