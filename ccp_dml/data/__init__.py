"""Sources of labelled images, samplers, and class-balanced batches for `fit` of any Keras model."""

from __future__ import annotations

from ccp_dml import lazy

_TARGETS = lazy.targets_of(
    {
        "batches": "EvaluationImages balanced_batches",
        "collection": "ImageCollection",
        "options": "ImageOptions",
        "sampling": "ClassUniformSampler MPerClassSampler RandomSampler RepresentativeSampler",
        "sources": "from_arrays from_dataframe from_files from_folder",
    }
)
__all__ = sorted(_TARGETS)
__getattr__ = lazy.loader(__name__, _TARGETS)
