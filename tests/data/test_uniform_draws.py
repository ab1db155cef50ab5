from __future__ import annotations

import numpy as np
import pytest
import tensorflow as tf

from ccp_dml.data.random_streams import uniform_draws


@pytest.mark.parametrize("count", [1, 3, 4, 41])
def test_draws_are_those_of_tensorflow(count: int) -> None:
    seeds = np.random.default_rng(0).integers(-(2**31), 2**31, (20, 2)).astype(np.int32)
    seeds[0] = 0
    seeds[1] = [-1, 2**31 - 1]
    with tf.device("CPU"):
        expected = [tf.random.stateless_uniform([count], seed) for seed in seeds]
    np.testing.assert_array_equal(uniform_draws(seeds, count), expected)
    assert uniform_draws(seeds, count).dtype == np.float32
