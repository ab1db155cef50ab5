"""The row of the retrieval benchmark in PyTorch; FAISS does not share a process with TensorFlow."""

from __future__ import annotations

from pytorch_metric_learning.utils.accuracy_calculator import AccuracyCalculator

from benchmarks.retrieval.cases import Problem

_NAMES = {"P@1": "precision_at_1", "P@R": "r_precision", "MAP@R": "mean_average_precision_at_r"}


def with_faiss(problem: Problem) -> dict[str, float]:
    """pytorch-metric-learning's accuracy calculator, with FAISS as deep as the metrics need."""
    calculator = AccuracyCalculator(include=tuple(_NAMES.values()), k="max_bin_count")
    rest = () if problem.is_self_retrieval else (problem.gallery, problem.gallery_labels)
    found = calculator.get_accuracy(problem.queries, problem.query_labels, *rest)
    return {name: float(found[key]) for name, key in _NAMES.items()}
