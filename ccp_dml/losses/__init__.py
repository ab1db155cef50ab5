"""Metric-learning losses and wrappers, such as `ccp_dml.losses.MultiSimilarity`.

A class is imported, and TensorFlow with it, when it is first used.
"""

from __future__ import annotations

from ccp_dml import lazy
from ccp_dml.losses.specs import LOSSES, WRAPPERS

_PATHS = [spec.target.split(":") for spec in (*LOSSES.values(), *WRAPPERS.values())]
_TARGETS = {name: module.removeprefix(__name__) for module, name in _PATHS}
__all__ = sorted(_TARGETS)
__getattr__ = lazy.loader(__name__, _TARGETS)
