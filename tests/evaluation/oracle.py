"""Retrieval by brute force: float64, explicit loops, no blocks, no shortcuts."""

from __future__ import annotations

import math

import numpy as np


def rankings(
    queries: np.ndarray, gallery: np.ndarray | None, query_ids=None, gallery_ids=None
) -> list[list[int]]:
    """Gallery indices of every query by distance, then index, without the query itself."""
    self_retrieval = gallery is None
    gallery = queries if gallery is None else gallery
    result = []
    for q, query in enumerate(np.asarray(queries, np.float64)):
        entries = []
        for g, row in enumerate(np.asarray(gallery, np.float64)):
            itself = q == g if self_retrieval else query_ids is not None and query_ids[q] == gallery_ids[g]
            if not itself:
                entries.append((sum((a - b) ** 2 for a, b in zip(query, row)), g))
        result.append([g for _, g in sorted(entries)])
    return result


def metrics(ranking: list[int], label: int, labels, recall_at, precision_at, map_at) -> dict[str, float]:
    """All metrics of one query, from their definitions; NaN without positives."""
    relevant = [labels[g] == label for g in ranking]
    r = sum(relevant)

    def hits(k: int) -> int:
        return sum(relevant[:k])

    def average(k: int) -> float:
        return sum(hits(i + 1) / (i + 1) for i in range(min(k, len(relevant))) if relevant[i]) / min(r, k)

    names = ["precision_at_1", "r_precision", "map_at_r", "recall_at_r"]
    names += [f"recall_at_{k}" for k in recall_at]
    names += [f"precision_at_{k}" for k in precision_at] + [f"map_at_{k}" for k in map_at]
    if r == 0:
        return dict.fromkeys(names, math.nan)
    values = [float(hits(1)), hits(r) / r, average(r), float(hits(r) > 0)]
    values += [float(hits(k) > 0) for k in recall_at]
    values += [hits(k) / k for k in precision_at] + [average(k) for k in map_at]
    return dict(zip(names, values))
