"""Deep metric learning with chance constraints, for TensorFlow and Keras.

The names of `__all__` are loaded at their first use, and TensorFlow with them.
"""

from __future__ import annotations

from ccp_dml import lazy

_TARGETS = {
    **lazy.targets_of(
        {
            "evaluation.callback": "RetrievalMetrics",
            "evaluation.metrics": "evaluate_retrieval",
            "evaluation.search": "nearest_neighbors",
            "projections.callback": "CCPCallback",
            "training.trainer": "Trainer",
        }
    ),
    **dict.fromkeys(["data", "evaluation", "losses", "models", "projections", "training"], ""),
}
__all__ = sorted(_TARGETS)
__getattr__ = lazy.loader(__name__, _TARGETS)
