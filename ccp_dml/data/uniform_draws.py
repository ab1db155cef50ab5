"""The random numbers of `tf.random.stateless_uniform`, for many seeds at once.

TensorFlow's operation takes one seed a call. The generator is Philox4x32-10 (Salmon, Moraes, Dror & Shaw,
Parallel random numbers: as easy as 1, 2, 3, SC 2011), whose key and counter TensorFlow makes of the seed by
one application of the same generator.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

_ROUNDS = 10
_MULTIPLIERS = np.uint64(0xD2511F53), np.uint64(0xCD9E8D57)
_KEY_INCREMENTS = 0x9E3779B9, 0xBB67AE85
_KEY_OF_SEEDS = 0x3EC8F720, 0x02461E29
_LOW, _HALF = np.uint64(0xFFFFFFFF), np.uint64(32)
_MANTISSA, _ONE = np.uint32(0x7FFFFF), np.uint32(0x3F800000)

Words = npt.NDArray[np.uint64]


def uniform_draws(seeds: npt.NDArray[Any], count: int) -> npt.NDArray[np.float32]:
    """Uniform numbers in [0, 1).

    Args:
        seeds: int32 [n, 2].
        count: numbers of each seed.

    Returns:
        float32 [n, count]; row i is `tf.random.stateless_uniform([count], seeds[i])` of a processor.
    """
    words = seeds.astype(np.int64).astype(np.uint64)
    counter = [words[:, 0] & _LOW, words[:, 0] >> _HALF, words[:, 1] & _LOW, words[:, 1] >> _HALF]
    key = [np.uint64(part) for part in _KEY_OF_SEEDS]
    first, second, third, fourth = (part[:, None] for part in _philox(counter, key))
    numbers = np.broadcast_to(np.arange(-(-count // 4), dtype=np.uint64), (len(seeds), -(-count // 4)))
    blocks = _philox([numbers, np.zeros_like(numbers), third, fourth], [first, second])
    bits = np.stack(blocks, -1).reshape(len(seeds), -1)[:, :count].astype(np.uint32)
    return ((bits & _MANTISSA) | _ONE).view(np.float32) - np.float32(1)


def _philox(counter: list[Words], key: list[Any]) -> list[Words]:
    """Four words of 32 bits for every counter of four words, each in a uint64."""
    for _ in range(_ROUNDS):
        even, odd = counter[0] * _MULTIPLIERS[0], counter[2] * _MULTIPLIERS[1]
        counter = [
            (odd >> _HALF) ^ counter[1] ^ key[0],
            odd & _LOW,
            (even >> _HALF) ^ counter[3] ^ key[1],
            even & _LOW,
        ]
        key = [(part + np.uint64(increment)) & _LOW for part, increment in zip(key, _KEY_INCREMENTS)]
    return counter
