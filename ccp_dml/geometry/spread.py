"""How far embeddings are from being all alike."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt


def mean_cosine(embeddings: npt.NDArray[np.float32]) -> float:
    """Mean cosine of the angle between two different embeddings: 1 where all point the same way.

    With u the embeddings at unit length, `(|Σ u|² - Σ |u|²) / (N (N - 1))`, in float64. An embedding of
    length 0 has no direction: it counts as pointing wherever the other one does.

    Args:
        embeddings: [N, D].

    Returns:
        A number in [-1, 1]; 1 for fewer than two embeddings; NaN if one is not finite.
    """
    values = np.asarray(embeddings, np.float64)
    lengths = np.linalg.norm(values, axis=1)
    if not np.isfinite(lengths).all():
        return float("nan")
    units = values[lengths > 0] / lengths[lengths > 0, np.newaxis]
    count, directed = len(values), len(units)
    if count < 2:
        return 1.0
    undirected = count * (count - 1) - directed * (directed - 1)
    total = float(np.sum(np.sum(units, axis=0) ** 2) - directed + undirected)
    return total / (count * (count - 1))
