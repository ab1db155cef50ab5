"""Gradient transforms, against loops in float64."""

from __future__ import annotations

import numpy as np
import pytest
import tensorflow as tf
from hypothesis import given, settings
from hypothesis import strategies as st

from ccp_dml.training.gradients import (
    AverageRegularization,
    ClipByGlobalNorm,
    ProximalTerm,
    WeightDecay,
    make_transforms,
)
from ccp_dml.training.options import GradientOptions
from tests.training import tiny


def random_arrays(seed: int) -> list[np.ndarray]:
    """Returns float32 values of three variables of different shapes, equal for equal seeds."""
    generator = np.random.default_rng(seed)
    return [generator.normal(size=shape).astype(np.float32) for shape in ((2, 3), (4,), (3, 2))]


def _by_hand(gradients, weights, anchors, *, coefficient, decay, norm, value):
    """Transforms gradients: variables 0 and 1 are pulled, 0 and 2 (a proxy) decayed; None stays None."""
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
def test_values_of_all_transforms_in_their_order(seed, missing, coefficient, decay, norm, value):
    weights, gradients, anchors = random_arrays(seed), random_arrays(seed + 1), random_arrays(seed + 2)
    if missing is not None:
        gradients[missing] = None
    variables = [tf.Variable(weight) for weight in weights]
    actual = [None if gradient is None else tf.constant(gradient) for gradient in gradients]
    proximal = ProximalTerm(variables[:2], anchors[:2], tf.Variable(coefficient))
    options = GradientOptions(weight_decay=decay, clip_norm=norm, clip_value=value)
    transforms = make_transforms(options, variables[:2], proximal=proximal, exclude_from_decay=[variables[1]])
    for transform in transforms:
        actual = transform(actual, variables)
    expected = _by_hand(
        gradients, weights, anchors, coefficient=coefficient, decay=decay, norm=norm, value=value
    )
    for a, b in zip(actual, expected):
        assert (a is None) == (b is None)
        if a is not None:
            np.testing.assert_allclose(a, b, rtol=2e-5, atol=1e-6)


def test_the_proximal_term_matches_variables_not_positions():
    first, second = tf.Variable([1.0]), tf.Variable([10.0])
    proximal = ProximalTerm([second], [tf.Variable([4.0])], 0.5)
    for variables in ([first, second], [second, first]):
        gradients = proximal([tf.zeros(1), tf.zeros(1)], variables)
        by_variable = {v.ref(): float(g[0]) for g, v in zip(gradients, variables)}
        assert by_variable == {first.ref(): 0.0, second.ref(): 3.0}


def test_the_proximal_coefficient_is_read_at_every_call():
    weight, coefficient = tf.Variable([2.0]), tf.Variable(0.0)
    proximal = ProximalTerm([weight], [tf.Variable([1.0])], coefficient)

    @tf.function(jit_compile=True)
    def pulled():
        return proximal([tf.zeros(1)], [weight])[0]

    assert float(pulled()[0]) == 0.0
    coefficient.assign(3.0)
    assert float(pulled()[0]) == 3.0


def test_options_of_zero_make_no_transform():
    assert make_transforms(GradientOptions(weight_decay=0.0, clip_norm=0.0, clip_value=0.0), []) == []


def test_every_weight_needs_an_anchor():
    with pytest.raises(ValueError, match="shorter"):
        ProximalTerm([tf.Variable(0.0)], [], 1.0)


def set_to_zero(variables: list[tf.Variable]) -> None:
    for variable in variables:
        variable.assign(tf.zeros_like(variable))


def _regularized_by_hand(averages, weights, gradients, *, attraction, repulsion, decay):
    """Computes new averages and gradients by component in float64; the last variable is a proxy."""
    squares, count = 0.0, 0
    for average, weight, gradient in zip(averages, weights, gradients):
        count += average.size
        if gradient is not None:
            for index in np.ndindex(average.shape):
                average[index] = decay * average[index] + (1 - decay) * float(weight[index])
                squares += (float(weight[index]) - average[index]) ** 2
    distance = np.sqrt(squares)
    slope = 0.0
    if distance > 0:
        slope = (attraction * distance**2 - repulsion * count / distance**2) / distance
    added = [
        gradient if gradient is None else gradient + slope * (weight - average)
        for average, weight, gradient in zip(averages, weights, gradients)
    ]
    return added + list(gradients[len(averages) :])


@settings(max_examples=20, deadline=None, derandomize=True)
@given(
    seed=st.integers(0, 1000),
    missing=st.sampled_from([None, 0, 1, 2]),
    attraction=st.floats(0, 2),
    repulsion=st.floats(0, 2),
    decay=st.floats(0, 0.99),
    from_zero=st.booleans(),
)
def test_averages_and_gradients_over_several_steps(seed, missing, attraction, repulsion, decay, from_zero):
    options = {"attraction": attraction, "repulsion": repulsion, "decay": decay}
    variables = [tf.Variable(array) for array in random_arrays(seed)]
    transform = AverageRegularization(variables[:2], **options)
    if from_zero:
        set_to_zero(transform.averages)
    averages = [average.numpy().astype(np.float64) for average in transform.averages]
    for step in range(1, 4):
        for variable, array in zip(variables, random_arrays(seed + step)):
            variable.assign(array)
        gradients = random_arrays(seed - step + 2000)
        if missing is not None:
            gradients[missing] = None
        actual = transform([None if g is None else tf.constant(g) for g in gradients], variables)
        expected = _regularized_by_hand(averages, [v.numpy() for v in variables], gradients, **options)
        for a, b in zip(actual, expected):
            assert (a is None) == (b is None)
            # If weights are close to their averages, float32 keeps few digits of the difference.
            if a is not None and decay > 0.1:
                np.testing.assert_allclose(a, b, rtol=1e-3, atol=1e-4)
        for average, value in zip(transform.averages, averages):
            np.testing.assert_allclose(average, value, rtol=1e-5, atol=1e-6)


def test_the_averages_add_the_gradient_of_their_potential():
    weight = tf.Variable([0.3, -0.5, 0.9])
    transform = AverageRegularization([weight], attraction=0.7, repulsion=0.2, decay=0.5)
    set_to_zero(transform.averages)
    (actual,) = transform([tf.zeros(3)], [weight])
    average = transform.averages[0].numpy().astype(np.float64)

    def potential(point):
        distance = np.linalg.norm(point - average)
        return 0.7 * distance**3 / 3 + 0.2 * 3 / distance

    point, step = weight.numpy().astype(np.float64), 1e-5
    slopes = [(potential(point + e) - potential(point - e)) / (2 * step) for e in step * np.eye(3)]
    np.testing.assert_allclose(actual, slopes, rtol=1e-4)


@pytest.mark.parametrize("value", [0.0, 1e-30, 1e30])
def test_gradients_are_finite_at_the_averages_and_far_from_them(value):
    weight = tf.Variable([0.0, 0.0])
    transform = AverageRegularization(
        [weight], attraction=1e-7, repulsion=1e-5, decay=0.0 if not value else 0.99
    )
    weight.assign([value, value])
    (gradient,) = transform([tf.ones(2)], [weight])
    assert np.isfinite(gradient).all()


def test_averages_compile_with_xla_and_change_at_every_step():
    weight = tf.Variable([2.0])
    transform = AverageRegularization([weight], attraction=1.0, repulsion=0.0, decay=0.5)
    set_to_zero(transform.averages)
    added = tf.function(lambda: transform([tf.zeros(1)], [weight])[0], jit_compile=True)
    assert float(added()[0]) == pytest.approx(1.0)
    assert float(added()[0]) == pytest.approx(0.25)


def test_averages_come_after_the_proximal_term_and_before_decay_and_clipping():
    weight = tf.Variable([1.0])
    proximal = ProximalTerm([weight], [tf.Variable([0.0])], 1.0)
    options = GradientOptions(ema_attraction=1e-7, ema_repulsion=1e-5, weight_decay=0.1, clip_norm=1.0)
    kinds = [type(transform) for transform in make_transforms(options, [weight], proximal=proximal)]
    assert kinds == [ProximalTerm, AverageRegularization, WeightDecay, ClipByGlobalNorm]


def test_averages_are_part_of_the_state_and_follow_the_weights():
    run = tiny.trainer(averages={"ema_attraction": 1e-7, "ema_repulsion": 1e-5, "ema_decay": 0.9})
    averages = run.state["average_regularization"].averages
    before = [average.numpy() for average in averages]
    run.fit(1)
    assert len(averages) == len(run.model.trainable_variables)
    assert any(not np.array_equal(average, start) for average, start in zip(averages, before))
    assert "average_regularization" not in tiny.trainer().state
