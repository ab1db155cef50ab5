"""Optimizers by name, and groups of variables with multipliers."""

from __future__ import annotations

import functools
import subprocess
import sys

import numpy as np
import pytest
import tensorflow as tf

from ccp_dml.training.optimizers import OPTIMIZERS, OptimizerGroups, VariableGroup, make_optimizer


def _adam(gradients: np.ndarray, rate: float, start: np.ndarray) -> np.ndarray:
    """Updates a weight by algorithm 1 of Kingma and Ba, in float64."""
    weight, m, v = start.astype(np.float64), 0.0, 0.0
    for t, gradient in enumerate(gradients.astype(np.float64), 1):
        m, v = 0.9 * m + 0.1 * gradient, 0.999 * v + 0.001 * gradient**2
        weight = weight - rate * (m / (1 - 0.9**t)) / (np.sqrt(v / (1 - 0.999**t)) + 1e-7)
    return weight


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_every_optimizer_descends_in_a_graph(name):
    weight, unused = tf.Variable([1.0, -2.0]), tf.Variable([5.0])
    groups = OptimizerGroups(functools.partial(make_optimizer, name), [VariableGroup([weight, unused])], 0.01)

    @tf.function
    def step():
        with tf.GradientTape() as tape:
            loss = tf.reduce_sum(weight**2)
        groups.apply(tape.gradient(loss, [weight, unused]), [weight, unused])

    count = len(groups.variables)
    for _ in range(10):
        step()
    assert float(tf.reduce_sum(weight**2)) < 5.0
    assert unused.numpy() == 5.0
    assert int(groups.iterations) == 10
    assert len(groups.variables) == count  # All slots exist from the start.


def test_every_optimizer_of_keras_has_a_name():
    keras = {
        kind.__name__.lower()
        for kind in vars(tf.keras.optimizers).values()
        if isinstance(kind, type) and kind is not tf.keras.optimizers.Optimizer
    }
    assert keras - {"lossscaleoptimizer"} <= set(OPTIMIZERS)


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_a_checkpoint_holds_all_slots(name, tmp_path):
    def start():
        weights = [tf.Variable([1.0, -2.0]), tf.Variable([[0.5], [3.0]])]
        members = [VariableGroup(weights[:1]), VariableGroup(weights[1:], 10.0)]
        groups = OptimizerGroups(functools.partial(make_optimizer, name), members, 0.01)
        return weights, groups, tf.train.Checkpoint(weights=weights, groups=groups)

    def steps(weights, groups, numbers):
        for number in numbers:
            gradients = [tf.cos(weight * (1.0 + number)) for weight in weights]
            groups.apply(gradients, weights)
        return [weight.numpy() for weight in weights]

    weights, groups, checkpoint = start()
    steps(weights, groups, range(3))
    path = checkpoint.write(str(tmp_path / "checkpoint"))
    expected = steps(weights, groups, range(3, 6))
    weights, groups, checkpoint = start()
    checkpoint.read(path).assert_consumed()
    for mine, other in zip(steps(weights, groups, range(3, 6)), expected):
        np.testing.assert_array_equal(mine, other)


@pytest.mark.parametrize("name", ["adam", "adamw"])
def test_multipliers_belong_to_variables(name):
    starts = {"a": np.float32([1, -1]), "b": np.float32([2, 3, 4]), "c": np.float32([0.5])}
    multipliers = {"a": 1.0, "b": 10.0, "c": 1.0}
    variables = {key: tf.Variable(value, name="same_name") for key, value in starts.items()}
    options = {"weight_decay": 0.0} if name == "adamw" else {}
    groups = OptimizerGroups(
        functools.partial(make_optimizer, name, **options),
        [VariableGroup([variables["a"], variables["c"]]), VariableGroup([variables["b"]], 10.0)],
        0.01,
    )
    generator = np.random.default_rng(0)
    gradients = {
        key: generator.normal(size=[5, *value.shape]).astype(np.float32) for key, value in starts.items()
    }
    for step, order in enumerate(["abc", "cba", "bac", "acb", "cab"]):
        groups.apply([tf.constant(gradients[key][step]) for key in order], [variables[key] for key in order])
    for key, variable in variables.items():
        expected = _adam(gradients[key], 0.01 * multipliers[key], starts[key])
        np.testing.assert_allclose(variable.numpy(), expected, rtol=2e-5)


def test_multipliers_agree_with_those_of_tensorflow_addons():
    import tensorflow_addons as tfa

    layers = [tf.keras.layers.Dense(3), tf.keras.layers.Dense(2)]
    model = tf.keras.Sequential(layers)
    model.build([None, 4])
    twin = tf.keras.models.clone_model(model)
    twin.set_weights(model.get_weights())
    legacy = tf.keras.optimizers.legacy.Adam
    theirs = tfa.optimizers.MultiOptimizer([(legacy(0.01), twin.layers[0]), (legacy(0.07), twin.layers[1])])
    ours = OptimizerGroups(
        functools.partial(make_optimizer, "adam"),
        [VariableGroup(layers[0].trainable_variables), VariableGroup(layers[1].trainable_variables, 7.0)],
        0.01,
    )
    inputs = tf.random.stateless_normal([5, 4], [1, 2])
    for _ in range(4):
        for network, apply in (
            (model, ours.apply),
            (twin, lambda g, v: theirs.apply_gradients(zip(g, v))),
        ):
            with tf.GradientTape() as tape:
                loss = tf.reduce_sum(network(inputs) ** 2)
            apply(tape.gradient(loss, network.trainable_variables), network.trainable_variables)
    for a, b in zip(model.get_weights(), twin.get_weights()):
        np.testing.assert_allclose(a, b, rtol=1e-5)


def test_groups_share_the_rate_and_scale_it():
    fast, slow = tf.Variable(0.0), tf.Variable(0.0)
    groups = OptimizerGroups(
        functools.partial(make_optimizer, "sgd"), [VariableGroup([slow]), VariableGroup([fast], 5.0)], 0.1
    )
    one = tf.constant(1.0)
    groups.apply([one, one], [slow, fast])
    groups.learning_rate.assign(1.0)
    groups.apply([one, one], [slow, fast], scale=0.5)
    assert (float(slow), float(fast)) == pytest.approx((-0.1 - 0.5, -0.5 - 2.5))


def test_options_are_passed_to_the_optimizer():
    weight = tf.Variable(0.0)
    make = functools.partial(make_optimizer, "sgd", momentum=0.5)
    groups = OptimizerGroups(make, [VariableGroup([weight])], 1.0)
    for _ in range(3):
        groups.apply([tf.constant(1.0)], [weight])
    assert float(weight) == -(1 + 1.5 + 1.75)


def test_wrong_arguments_are_refused():
    with pytest.raises(ValueError, match="'adma'; expected one of .*adam.*lamb.*radam"):
        make_optimizer("adma", 0.1)
    with pytest.raises(ValueError, match="positive"):
        make_optimizer("adam", 0.0)
    with pytest.raises(ValueError, match="momemtum"):
        make_optimizer("adamw", 0.1, momemtum=0.9)
    a, b = tf.Variable(1.0), tf.Variable(1.0)
    make = functools.partial(make_optimizer, "sgd")
    with pytest.raises(ValueError, match="two groups"):
        OptimizerGroups(make, [VariableGroup([a]), VariableGroup([a], 2.0)], 0.1)
    with pytest.raises(ValueError, match="multiplier is -1.0; expected a non-negative"):
        OptimizerGroups(make, [VariableGroup([a], -1.0)], 0.1)
    with pytest.raises(ValueError, match="no variables"):
        OptimizerGroups(make, [VariableGroup([])], 0.1)
    groups = OptimizerGroups(make, [VariableGroup([a])], 0.1)
    with pytest.raises(ValueError, match="in no group"):
        groups.apply([tf.constant(1.0)], [b])
    with pytest.raises(ValueError, match="No variable has a gradient"):
        groups.apply([None], [a])


def test_tensorflow_addons_is_imported_late_and_silently():
    code = (
        "import sys; from ccp_dml.training.optimizers import make_optimizer\n"
        "assert 'tensorflow_addons' not in sys.modules\n"
        "make_optimizer('lamb', 0.1); make_optimizer('radam', 0.1)\n"
        "assert 'tensorflow_addons' in sys.modules\n"
    )
    result = subprocess.run(
        [sys.executable, "-W", "always", "-c", code],
        capture_output=True,
        text=True,
        env={"TF_CPP_MIN_LOG_LEVEL": "3", "PATH": ""},
        check=False,
    )
    assert result.returncode == 0, result.stderr
    assert "addons" not in result.stderr.lower()
