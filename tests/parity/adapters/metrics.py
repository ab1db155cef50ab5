"""Retrieval metrics, against the brute-force values in the recording."""

from __future__ import annotations

import numpy as np

from ccp_dml.evaluation.metrics import RetrievalResult, evaluate_retrieval
from ccp_dml.geometry import normalize
from tests.parity.comparison import Case, Comparison


def compare(case: Case) -> list[Comparison]:
    """Compares means, and per-query values if they were recorded."""
    if "atK" in case.config:
        return _compare_lists(case)
    result = _evaluate(case)
    columns = np.stack([result.map_at_r, result.r_precision, result.precision_at_1], axis=1)
    means = result.means()
    return [
        Comparison(
            "means",
            np.array([means["map_at_r"], means["r_precision"], means["recall_at_k"]["1"]]),
            case.arrays["correct"],
        ),
        Comparison("per_query", columns, case.arrays["per_query"]),
    ]


def _compare_lists(case: Case) -> list[Comparison]:
    """Compares metrics at several k, in the layout [MAP@k..., MAP@R, P@k..., P@R, R@k..., R@R]."""
    ks = tuple(case.config["atK"])
    means = _evaluate(case, recall_at=ks, precision_at=ks, map_at=ks).means()
    values = [
        *(means["map_at_k"][str(k)] for k in ks),
        means["map_at_r"],
        *(means["precision_at_k"][str(k)] for k in ks),
        means["r_precision"],
        *(means["recall_at_k"][str(k)] for k in ks),
        means["recall_at_r"],
    ]
    return [Comparison("means", np.array(values), case.arrays["correct"])]


def _evaluate(case: Case, **cutoffs: tuple[int, ...]) -> RetrievalResult:
    kind = "none"
    if case.config["normalize_embeddings"]:
        kind = "lipschitz" if case.config["lipschitz_cont"] else "unit"
    embeddings = normalize(case.arrays["emb"], kind).numpy()
    labels = case.arrays["labels"]
    split = case.config.get("split_at", 0)
    if not split:
        return evaluate_retrieval(embeddings, labels, **cutoffs)
    return evaluate_retrieval(
        embeddings[:split],
        labels[:split],
        gallery=embeddings[split:],
        gallery_labels=labels[split:],
        **cutoffs,
    )
