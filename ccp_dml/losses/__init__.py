"""Metric-learning losses and wrappers, such as `ccp_dml.losses.MultiSimilarity`.

A class is imported, and TensorFlow with it, when it is first used.
"""

from __future__ import annotations

from typing import Any

from ccp_dml.losses import registry

_TARGETS = {
    spec.target.split(":")[1]: spec.target
    for spec in (*registry.LOSSES.values(), *registry.WRAPPERS.values())
}


def __getattr__(name: str) -> Any:
    if name not in _TARGETS:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return registry.load(_TARGETS[name])


def __dir__() -> list[str]:
    return sorted([*globals(), *_TARGETS])
