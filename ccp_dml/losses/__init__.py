"""Metric-learning losses, their wrappers and miners.

Every loss class is an attribute of this package, such as `ccp_dml.losses.MultiSimilarity`; its module, and
with it TensorFlow, is imported on first use.
"""

from __future__ import annotations

import importlib
from typing import Any

from ccp_dml.losses import registry

_CLASSES = {
    spec.target.split(":")[1]: spec.target.split(":")[0]
    for spec in (*registry.LOSSES.values(), *registry.WRAPPERS.values())
}


def __getattr__(name: str) -> Any:
    if name not in _CLASSES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(_CLASSES[name]), name)


def __dir__() -> list[str]:
    return sorted([*globals(), *_CLASSES])
