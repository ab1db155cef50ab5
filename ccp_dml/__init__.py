"""Deep metric learning with chance constraints, for TensorFlow and Keras.

The names of `__all__` are loaded at their first use, and TensorFlow with them.
"""

from __future__ import annotations

import importlib
from typing import Any

_PUBLIC = {
    "CCPCallback": "projections.callback",
    "RetrievalMetrics": "evaluation.callback",
    "evaluate_retrieval": "evaluation.metrics",
    "nearest_neighbors": "evaluation.search",
}

__all__ = sorted(_PUBLIC)


def __getattr__(name: str) -> Any:
    """Loads a public name from the module that defines it."""
    if name not in _PUBLIC:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"{__name__}.{_PUBLIC[name]}"), name)
