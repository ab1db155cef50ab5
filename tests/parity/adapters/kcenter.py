"""Greedy k-center: picks and centers."""

from __future__ import annotations

import numpy as np

from ccp_dml.geometry import greedy_k_center
from tests.parity.comparison import Case, Comparison


def compare(case: Case) -> list[Comparison]:
    """Compares one case of kcenter.npz, with pools [C, n, D] and picks [C, K]."""
    pool = np.swapaxes(case.arrays["points"], 0, 1)
    covered = np.swapaxes(case.arrays["initial"], 0, 1)
    picks, centers = greedy_k_center(
        pool, covered, case.config["K"], normalized=case.config["normalized_embeddings"]
    )
    rows = np.reshape(centers, [-1, pool.shape[-1]])
    return [
        Comparison("picks", np.transpose(picks), case.arrays["picks"], rtol=0.0),
        Comparison("out", rows, case.arrays["out"], rtol=0.0),
    ]
