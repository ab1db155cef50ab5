"""Values for three variables of different shapes."""

from __future__ import annotations

import numpy as np

SHAPES = [(2, 3), (4,), (3, 2)]


def random_arrays(seed: int) -> list[np.ndarray]:
    """float32 arrays, the same for the same seed."""
    generator = np.random.default_rng(seed)
    return [generator.normal(size=shape).astype(np.float32) for shape in SHAPES]
