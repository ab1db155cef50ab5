"""The staleness of proxies, against loops in NumPy."""

from __future__ import annotations

import numpy as np
import pytest

from ccp_dml.projections.choice import staleness


def test_staleness_equals_loops():
    generator = np.random.default_rng(3)
    proxies, present = generator.normal(size=[6, 4]), generator.normal(size=[6, 4])
    center = sum(proxies) / 6
    moved = sum(np.sqrt(((p - x) ** 2).sum()) for p, x in zip(proxies, present))
    spread = sum(np.sqrt(((p - center) ** 2).sum()) for p in proxies)
    assert staleness(proxies, present) == pytest.approx(moved / spread, rel=1e-5)
    assert staleness(100 * proxies, 100 * present) == pytest.approx(moved / spread, rel=1e-5)
    assert staleness(proxies, 7 * proxies, "unit") == pytest.approx(0.0, abs=1e-6)
    same = np.ones([3, 2])
    assert staleness(same, same) == 0.0
    assert staleness(same, 2 * same) == float("inf")
    with pytest.raises(ValueError, match=r"present has the shape \(3, 4\); expected \(6, 4\)"):
        staleness(proxies, present[:3])
