"""The public names: loaded at their first use, with examples that run, on a page that is up to date."""

from __future__ import annotations

import doctest
import importlib
import inspect
import runpy
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tensorflow as tf

import ccp_dml
from ccp_dml.options import Options
from tests import ROOT

PACKAGES = [ccp_dml, *(getattr(ccp_dml, name) for name in ccp_dml.__all__)]
PACKAGES = [package for package in PACKAGES if inspect.ismodule(package)]
# One entry for each object, although several packages may name it.
PUBLIC = {
    f"{thing.__module__}.{name}": thing
    for package in PACKAGES
    for name in package.__all__
    if not inspect.ismodule(thing := getattr(package, name))
}


@pytest.fixture(scope="module")
def names(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """What examples use besides the names of their module: folders and a file."""
    photos = tmp_path_factory.mktemp("photos")
    for number, label in enumerate(("cat", "cow", "dog", "fox")):
        (photos / label).mkdir()
        for file in ("a.png", "b.png"):
            pixels = np.full([20, 30, 3], 40 * number, np.uint8)
            (photos / label / file).write_bytes(tf.io.encode_png(pixels).numpy())
    folder = tmp_path_factory.mktemp("folder")
    return {"np": np, "tf": tf, "ccp_dml": ccp_dml, "photos": photos, "folder": folder}


@pytest.mark.parametrize("place", PUBLIC)
def test_the_examples_of_the_docstring_run(place: str, names: dict[str, Any]) -> None:
    thing = PUBLIC[place]
    globs = {**vars(importlib.import_module(thing.__module__)), **names}
    examples = doctest.DocTestFinder().find(thing, globs=globs)
    runner = doctest.DocTestRunner()
    for example in examples:
        runner.run(example)
    assert runner.summarize(verbose=False).failed == 0
    # The page of the flags documents options.
    assert sum(len(example.examples) for example in examples) or issubclass(thing, Options)


def test_public_names_are_loaded_at_their_first_use() -> None:
    code = (
        "import sys, ccp_dml, ccp_dml.losses, ccp_dml.evaluation as e; e.format_table; "
        "ccp_dml.data, ccp_dml.models, ccp_dml.training.TrainingOptions; "
        "sys.exit('tensorflow' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
    for package in PACKAGES:
        with pytest.raises(AttributeError, match=f"module '{package.__name__}' has no attribute 'nothing'"):
            _ = package.nothing


def test_the_page_of_the_api_is_up_to_date() -> None:
    """`python docs/api.py` writes it again."""
    page = runpy.run_path(str(ROOT / "docs" / "api.py"))["page"]
    assert (ROOT / "docs" / "api.md").read_text(encoding="utf-8") == page()


def test_the_page_of_the_api_has_every_public_name() -> None:
    text = Path(ROOT / "docs" / "api.md").read_text(encoding="utf-8")
    assert [place for place in PUBLIC if f"`{place.rsplit('.', 1)[1]}" not in text] == []
