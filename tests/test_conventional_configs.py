"""The conventional protocol: configs/DATASET.cfg with configs/conventional/BACKBONE.cfg and a method on top.

Expected values are those of the authors' code.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from ccp_dml.config import ExperimentConfig, command_line
from ccp_dml.errors import UserError

FOLDER = Path(__file__).parents[1] / "configs"
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
OF_BACKBONE = {
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
WITH_OWN_PROXIES = ("proxy_anchor", "proxy_nca", "soft_triple")
for base in ("c1", "c2", "ms", "triplet"):
    METHODS[f"{base}_ccp"] = (f"ccp/{METHODS[base][0]}", METHODS[base][1] | {"ccp_monitor": "precision_at_1"})
for base in ("c1", "c2"):
    METHODS[f"{base}_xbm"] = (f"xbm/{METHODS[base][0]}", METHODS[base][1] | {"start_step": 1000})


def read(dataset: str, *names: str) -> ExperimentConfig:
    files = [FOLDER / dataset, *(FOLDER / "conventional" / name for name in names)]
    return command_line.read([f"--flagfile={file}.cfg" for file in files])


def batch(dataset: str, backbone: str, method: str) -> tuple[int, int]:
    """Classes, and samples of each."""
    classes = OF_BACKBONE[backbone]["classes"]
    if method not in WITH_OWN_PROXIES:
        return classes, 4
    return min(4 * classes, {"cub": 100, "cars196": 96}.get(dataset, 4 * classes)), 1


def memory_size(dataset: str, backbone: str) -> int:
    batches = {"inshop": 400, "sop": 1400}.get(dataset, OF_BACKBONE[backbone]["memory"])
    return batches * 4 * OF_BACKBONE[backbone]["classes"]


def test_all_methods_are_there():
    assert {file.stem for file in (FOLDER / "conventional" / "losses").glob("*.cfg")} == set(METHODS)


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("backbone", OF_BACKBONE)
@pytest.mark.parametrize("dataset", [*SMALL, *LARGE])
def test_each_is_valid_and_has_the_values_of_the_authors(dataset, backbone, method):
    config = read(dataset, backbone, f"losses/{method}")
    config.check_flags()
    found = config.resolve().to_dict()
    loss, of_loss = METHODS[method]
    large, own = dataset in LARGE, OF_BACKBONE[backbone]
    expected = SETTING | of_loss
    expected |= {"dataset": dataset, "backbone": backbone, "loss": loss, "weight_decay": own["weight_decay"]}
    expected |= {"steps_per_epoch": 250, "learning_rate": 1e-4} if large else {}
    expected |= {} if large else {"steps_per_epoch": 25, "learning_rate": 1e-5}
    expected |= {"patience": own["patience"] if large else 15, "plateau_patience": 3 if large else 4}
    if method.endswith("ccp"):
        expected |= {"proxies_per_class": 4 if large else 8, "pool_size": 7 if large else 12}
    if method.endswith("xbm"):
        expected |= {"memory_size": memory_size(dataset, backbone)}
    assert {flag: found[flag] for flag in expected} == expected
    assert (found["classes_per_batch"], found["samples_per_class"]) == batch(dataset, backbone, method)
    assert len(config.resolve().members) == 3


@pytest.mark.parametrize("backbone", OF_BACKBONE)
def test_without_a_method_it_is_c2_ccp(backbone):
    assert read("sop", backbone) == read("sop", backbone, "losses/c2_ccp")


def test_it_is_said_that_the_score_flatters():
    (warning,) = read("cub", "resnet50").warnings()
    assert warning.startswith("--protocol=conventional chooses the best epoch by the test classes")


def test_a_data_set_without_values_is_named():
    with pytest.raises(UserError, match=r"values/resnet50/emoji\.cfg: cannot be read"):
        read("emoji", "resnet50")
