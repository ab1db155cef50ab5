"""Seeds for the layers of a network."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np


def layer_seeds(seed: int) -> Iterator[int]:
    """Yields a sequence of seeds, one for each layer of a network, that depends on `seed` alone.

    Consecutive values of `seed` give unrelated sequences, so that two networks share no layer's start.
    """
    generator = np.random.default_rng(seed)
    while True:
        yield int(generator.integers(2**31))
