"""Evaluation: exact retrieval search, metrics, embedding of image sets, tables.

The public names are loaded at their first use, so importing this package does not import TensorFlow.
"""

from __future__ import annotations

import importlib
from typing import Any

_PUBLIC = {
    "Embedder": "embedding",
    "Evaluation": "embedding",
    "RetrievalResult": "metrics",
    "embed": "embedding",
    "evaluate_retrieval": "metrics",
    "format_table": "report",
    "nearest_neighbors": "search",
}

__all__ = sorted(_PUBLIC)


def __getattr__(name: str) -> Any:
    """Loads a public name from the module that defines it."""
    if name not in _PUBLIC:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"{__name__}.{_PUBLIC[name]}"), name)
