"""The mean cosine of embeddings against loops."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from ccp_dml.geometry import mean_cosine


def by_loops(embeddings: np.ndarray) -> float:
    total, pairs = 0.0, 0
    for i, a in enumerate(embeddings.astype(np.float64)):
        for j, b in enumerate(embeddings.astype(np.float64)):
            if i != j:
                length = np.linalg.norm(a) * np.linalg.norm(b)
                total += 1.0 if length == 0 else float(a @ b) / length
                pairs += 1
    return total / pairs


@given(
    arrays.arrays(np.float32, st.tuples(st.integers(2, 6), st.integers(1, 4)), elements=st.integers(-3, 3))
)
def test_mean_cosine_is_the_mean_over_pairs(embeddings):
    assert mean_cosine(embeddings) == pytest.approx(by_loops(embeddings), abs=1e-12)


def test_few_zero_and_infinite_embeddings():
    assert mean_cosine(np.ones([1, 3], np.float32)) == 1.0
    assert mean_cosine(np.zeros([4, 3], np.float32)) == 1.0
    assert np.isnan(mean_cosine(np.array([[1.0], [np.nan]], np.float32)))
