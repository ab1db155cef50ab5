"""Evaluation: exact retrieval search, metrics, embedding of image sets, tables.

The public names are loaded at their first use, so importing this package does not import TensorFlow.
"""

from __future__ import annotations

from ccp_dml import lazy

_TARGETS = lazy.targets_of(
    {
        "callback": "RetrievalMetrics",
        "embedding": "Embedder Evaluation embed",
        "metrics": "RetrievalResult evaluate_retrieval",
        "report": "format_table",
        "search": "nearest_neighbors",
    }
)
__all__ = sorted(_TARGETS)
__getattr__ = lazy.loader(__name__, _TARGETS)
