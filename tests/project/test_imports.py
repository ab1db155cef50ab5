"""Modules that do not import TensorFlow, and choices that are listed without it."""

from __future__ import annotations

import pkgutil
import subprocess
import sys

import pytest

import ccp_dml

LIGHT = [
    "ccp_dml.config.command_line",
    "ccp_dml.run_directory",
    "ccp_dml.commands",
    "ccp_dml.evaluate",
    "ccp_dml.export",
    "ccp_dml.losses.registry",
    "ccp_dml.models.backbones.registry",
    "ccp_dml.data.catalog",
    "train",
]


def packages() -> list[str]:
    found = pkgutil.walk_packages(ccp_dml.__path__, "ccp_dml.", onerror=lambda name: None)
    return ["ccp_dml", *(module.name for module in found if module.ispkg)]


@pytest.fixture(scope="module")
def loaded_modules() -> set[str]:
    imports = "\n".join(f"import {name}" for name in [*packages(), *LIGHT])
    code = f"import sys\n{imports}\nprint(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    return {name.split(".")[0] for name in done.stdout.split()}


def test_the_packages_are_found():
    assert {"ccp_dml.losses", "ccp_dml.models.backbones", "ccp_dml.config"} <= set(packages())


@pytest.mark.parametrize("heavy", ["tensorflow", "tensorflow_datasets", "tensorflow_addons", "keras"])
def test_packages_and_flags_do_not_import(heavy, loaded_modules):
    assert heavy not in loaded_modules


def test_the_listed_choices_are_those_that_exist():
    from ccp_dml.config import ExperimentConfig
    from ccp_dml.geometry import NORMALIZATIONS
    from ccp_dml.losses.miners import MINERS
    from ccp_dml.models.layers import POOLINGS
    from ccp_dml.training.optimizers import OPTIMIZERS

    choices = {declared.name: declared.kind for declared, _ in ExperimentConfig().items()}
    assert set(choices["optimizer"].names) == set(OPTIMIZERS)
    assert set(choices["miner"].names) == set(MINERS)
    assert set(choices["pooling"].names) == set(POOLINGS)
    assert set(choices["normalization"].names) == set(NORMALIZATIONS)
