from __future__ import annotations

import numpy as np
import pytest
import tensorflow as tf
from hypothesis import given, settings
from hypothesis import strategies as st

from ccp_dml.training.gradients import (
    ClipByGlobalNorm,
    ClipByValue,
    ProximalTerm,
    WeightDecay,
    standard_transforms,
)
from tests.training.random_arrays import random_arrays


def _by_hand(gradients, weights, anchors, *, coefficient, decay, norm, value):
    """Variable 0 is pulled and decayed, 1 pulled only, 2 (a proxy) decayed only; None where no gradient."""
    result = []
    for i, (gradient, weight) in enumerate(zip(gradients, weights)):
        if gradient is None:
            result.append(None)
            continue
        gradient = gradient.astype(np.float64)
        if i in (0, 1):
            gradient = gradient + coefficient * (weight.astype(np.float64) - anchors[i])
        if i in (0, 2):
            gradient = gradient + decay * weight
        result.append(gradient)
    total = np.sqrt(sum((gradient**2).sum() for gradient in result if gradient is not None))
    scaled = [None if g is None else g * min(1.0, norm / total) for g in result]
    return [None if g is None else np.clip(g, -value, value) for g in scaled]


@settings(max_examples=25, deadline=None, derandomize=True)
@given(
    seed=st.integers(0, 1000),
    missing=st.sampled_from([None, 0, 1, 2]),
    coefficient=st.floats(0, 2),
    decay=st.floats(0, 2),
    norm=st.floats(0.1, 20),
    value=st.floats(0.05, 5),
)
def test_order_and_values(seed, missing, coefficient, decay, norm, value):
    weights, gradients, anchors = random_arrays(seed), random_arrays(seed + 1), random_arrays(seed + 2)
    if missing is not None:
        gradients[missing] = None
    variables = [tf.Variable(weight) for weight in weights]
    actual = [None if gradient is None else tf.constant(gradient) for gradient in gradients]
    proximal = ProximalTerm(variables[:2], anchors[:2], tf.Variable(coefficient))
    transforms = standard_transforms(
        proximal=proximal,
        weight_decay=decay,
        exclude_from_decay=[variables[1]],
        clip_norm=norm,
        clip_value=value,
    )
    for transform in transforms:
        actual = transform(actual, variables)
    expected = _by_hand(
        gradients, weights, anchors, coefficient=coefficient, decay=decay, norm=norm, value=value
    )
    for a, b in zip(actual, expected):
        assert (a is None) == (b is None)
        if a is not None:
            np.testing.assert_allclose(a, b, rtol=2e-5, atol=1e-6)


def test_matches_variables_not_positions():
    first, second = tf.Variable([1.0]), tf.Variable([10.0])
    proximal = ProximalTerm([second], [tf.Variable([4.0])], 0.5)
    for variables in ([first, second], [second, first]):
        gradients = proximal([tf.zeros(1), tf.zeros(1)], variables)
        by_variable = {v.ref(): float(g[0]) for g, v in zip(gradients, variables)}
        assert by_variable == {first.ref(): 0.0, second.ref(): 3.0}


def test_coefficient_variable_is_read_at_every_call():
    weight, coefficient = tf.Variable([2.0]), tf.Variable(0.0)
    proximal = ProximalTerm([weight], [tf.Variable([1.0])], coefficient)

    @tf.function(jit_compile=True)
    def pulled():
        return proximal([tf.zeros(1)], [weight])[0]

    assert float(pulled()[0]) == 0.0
    coefficient.assign(3.0)
    assert float(pulled()[0]) == 3.0


def test_nothing_asked_for_is_nothing():
    assert standard_transforms() == []


@pytest.mark.parametrize(
    "make",
    [
        lambda: WeightDecay(-1.0),
        lambda: ClipByGlobalNorm(0.0),
        lambda: ClipByValue(-1.0),
        lambda: ProximalTerm([tf.Variable(0.0)], [], 1.0),
    ],
)
def test_bad_arguments(make):
    with pytest.raises(ValueError, match="expected"):
        make()
