"""Products, maxima of chunks, and the precision of both."""

from __future__ import annotations

import numpy as np
import pytest
import tensorflow as tf

from ccp_dml.evaluation import kernels
from ccp_dml.evaluation.blocks import LANES
from ccp_dml.evaluation.kernels import full_float32


def test_tensor_float_32_is_off_inside_the_context_and_restored():
    states = []
    before = tf.config.experimental.tensor_float_32_execution_enabled()
    for state in (True, False):
        tf.config.experimental.enable_tensor_float_32_execution(state)
        with full_float32():
            states.append(tf.config.experimental.tensor_float_32_execution_enabled())
        states.append(tf.config.experimental.tensor_float_32_execution_enabled())
    tf.config.experimental.enable_tensor_float_32_execution(before)
    assert states == [False, True, False, False]


@pytest.mark.parametrize("dtype", [tf.float32, tf.bfloat16])
@pytest.mark.parametrize("chunk", [16, 64, 256])
def test_a_chunk_is_every_so_many_columns(chunk, dtype):
    scores = tf.random.stateless_uniform([3, 2 * chunk * LANES], [chunk, 0], -9.0, -1.0)
    scores = tf.cast(tf.concat([scores[:, :-500], tf.fill([3, 500], kernels.PADDING_SCORE)], axis=1), dtype)
    values = scores.numpy().astype(np.float64)
    expected = [
        [max(row[start + lane : start + chunk * LANES : LANES]) for lane in range(LANES)]
        for row in values
        for start in (0, chunk * LANES)
    ]
    actual = kernels.maxima_of_chunks(scores, chunk)
    np.testing.assert_array_equal(actual.numpy().astype(np.float64), np.reshape(expected, [3, -1]))
