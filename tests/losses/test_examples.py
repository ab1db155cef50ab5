"""The examples in the docstrings of the losses run and print the values that they state."""

from __future__ import annotations

import doctest
import importlib

import pytest

from ccp_dml.losses import registry


@pytest.mark.parametrize("name", registry.LOSSES)
def test_example_of_the_docstring(name: str) -> None:
    target = registry.LOSSES[name].target
    globals_of_module = vars(importlib.import_module(target.split(":")[0]))
    [example] = doctest.DocTestFinder(recurse=False).find(registry.load(target), globs=globals_of_module)
    results = doctest.DocTestRunner().run(example)
    assert results.failed == 0
    assert results.attempted > 0
