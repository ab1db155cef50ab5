"""Public names of packages, loaded at their first use."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Callable, Mapping
from typing import Any


def loader(package: str, targets: Mapping[str, str]) -> Callable[[str], Any]:
    """Returns the `__getattr__` of a package that imports nothing before one of its names is used.

    Args:
        package: `__name__` of the package.
        targets: the module of each public name, relative to the package, such as ".search"; a name with an
            empty target is a subpackage.
    """

    def load(name: str) -> Any:
        if name not in targets:
            raise AttributeError(f"module {package!r} has no attribute {name!r}")
        if not targets[name]:
            return importlib.import_module(f"{package}.{name}")
        value = getattr(importlib.import_module(targets[name], package), name)
        setattr(sys.modules[package], name, value)
        return value

    return load


def targets_of(modules: Mapping[str, str]) -> dict[str, str]:
    """Returns the target of each name, given the names of each module, separated by spaces."""
    return {name: f".{module}" for module, names in modules.items() for name in names.split()}
