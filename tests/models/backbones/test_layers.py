"""Building blocks of the backbones against the operations of TensorFlow."""

from __future__ import annotations

import numpy as np
import pytest
import tensorflow as tf

from ccp_dml.models.backbones import layers as module
from ccp_dml.models.backbones.layers import FrozenNormConvolution, depthwise_convolution, kernel_gradient

RNG = np.random.default_rng(0)


def _normal(*shape: int) -> np.ndarray:
    return RNG.normal(size=shape).astype(np.float32)


@pytest.mark.parametrize("size", [(1, 1), (2, 2), (3, 3), (4, 4), (8, 8), (5, 7), (6, 1)])
@pytest.mark.parametrize("kernel_size", [3, 5])
@pytest.mark.parametrize("strides", [1, 2])
def test_kernel_gradient_is_that_of_tensorflow(size, kernel_size, strides):
    inputs = _normal(3, *size, 4)
    out_size = [-(-side // strides) for side in size]
    upstream = _normal(3, *out_size, 4)
    shape = [kernel_size, kernel_size, 4, 1]
    expected = tf.nn.depthwise_conv2d_backprop_filter(
        inputs, shape, upstream, [1, strides, strides, 1], "SAME"
    )
    actual = kernel_gradient(tf.constant(inputs), tf.constant(upstream), kernel_size, strides)
    np.testing.assert_allclose(actual, expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("known_size", [True, False])
@pytest.mark.parametrize("size, strides", [(4, 1), (4, 2), (12, 1)])
def test_depthwise_convolution_and_its_gradients(known_size, size, strides):
    inputs, kernel = _normal(3, size, size, 4), _normal(5, 5, 4, 1)
    out_size = -(-size // strides)
    upstream = _normal(3, out_size, out_size, 4)

    def differentiate(convolve):
        side = size if known_size else None

        @tf.function(input_signature=[tf.TensorSpec([None, side, side, 4]), tf.TensorSpec(kernel.shape)])
        def run(inputs, kernel):
            with tf.GradientTape() as tape:
                tape.watch([inputs, kernel])
                outputs = convolve(inputs, kernel)
            return outputs, *tape.gradient(outputs, [inputs, kernel], upstream)

        return run(inputs, kernel)

    actual = differentiate(lambda x, k: depthwise_convolution(x, k, strides))
    expected = differentiate(lambda x, k: tf.nn.depthwise_conv2d(x, k, [1, strides, strides, 1], "SAME"))
    for one, other in zip(actual, expected):
        np.testing.assert_allclose(one, other, rtol=1e-5, atol=1e-5)


@pytest.mark.skipif(bool(tf.config.list_physical_devices("GPU")), reason="the products are for CPUs")
def test_products_are_used_for_small_feature_maps_only(monkeypatch):
    used = []
    monkeypatch.setattr(module, "kernel_gradient", lambda *_: used.append(True) or tf.zeros([5, 5, 4, 1]))
    for size in (8, 9):
        kernel = tf.Variable(_normal(5, 5, 4, 1))
        with tf.GradientTape() as tape:
            outputs = depthwise_convolution(tf.constant(_normal(1, size, size, 4)), kernel, 1)
        tape.gradient(outputs, kernel)
        assert used == [True], size


def _randomise(layer: tf.keras.layers.Layer) -> None:
    for variable in layer.weights:
        values = RNG.normal(size=variable.shape)
        variable.assign(np.abs(values) if "variance" in variable.name else values)


@pytest.mark.parametrize("filters, kernel_size, strides", [(6, 3, 2), (6, 1, 1), (None, 5, 1), (None, 3, 2)])
def test_frozen_norm_convolution_is_a_convolution_and_a_normalisation(filters, kernel_size, strides):
    inputs = _normal(2, 6, 8, 4)
    layer = FrozenNormConvolution(filters, kernel_size, strides, epsilon=0.01)
    layer(inputs)
    _randomise(layer)
    if filters is None:
        mapped = tf.nn.depthwise_conv2d(inputs, layer.kernel, [1, strides, strides, 1], "SAME")
    else:
        mapped = tf.nn.conv2d(inputs, layer.kernel, strides, "SAME")
    deviation = np.sqrt(layer.moving_variance.numpy() + 0.01)
    expected = layer.gamma * (mapped - layer.moving_mean) / deviation + layer.beta
    np.testing.assert_allclose(layer(inputs), expected, rtol=1e-4, atol=1e-5)
    np.testing.assert_array_equal(layer(inputs, training=True), layer(inputs))


@pytest.mark.parametrize("kernel_size, strides", [(3, 1), (3, 2), (7, 2), (1, 2)])
def test_padding_on_both_sides_and_a_bias(kernel_size, strides):
    inputs = _normal(2, 6, 9, 4)
    layer = FrozenNormConvolution(6, kernel_size, strides, symmetric_padding=True, use_bias=True)
    layer(inputs)
    _randomise(layer)
    margin = (kernel_size - 1) // 2
    padded = np.pad(inputs, [(0, 0), (margin, margin), (margin, margin), (0, 0)])
    mapped = tf.nn.conv2d(padded, layer.kernel, strides, "VALID") + layer.bias
    deviation = np.sqrt(layer.moving_variance.numpy() + 1e-3)
    expected = layer.gamma * (mapped - layer.moving_mean) / deviation + layer.beta
    np.testing.assert_allclose(layer(inputs), expected, rtol=1e-4, atol=1e-4)
    assert len(layer.trainable_variables) == 2
    again = FrozenNormConvolution.from_config(layer.get_config())
    assert again.get_config() == layer.get_config()


def test_symmetric_padding_of_depthwise_and_even_kernels_is_refused():
    for filters, kernel_size in [(None, 3), (6, 4)]:
        with pytest.raises(ValueError, match="symmetric_padding is True"):
            FrozenNormConvolution(filters, kernel_size, symmetric_padding=True)


def test_only_the_kernel_is_trainable_whatever_trainable_says():
    layer = FrozenNormConvolution(6, 3)
    layer.build((None, 4, 4, 3))
    layer.trainable = False
    assert layer.trainable_variables == []
    layer.trainable = True
    assert [variable is layer.kernel for variable in layer.trainable_variables] == [True]
    names = [variable.name.split("/")[-1].split(":")[0] for variable in layer.batch_norm_weights]
    assert names == ["gamma", "beta", "moving_mean", "moving_variance"]


def test_normalisation_is_folded_in_float32_in_half_precision(half_precision):
    layer = FrozenNormConvolution(2, 1)
    layer.build((None, 1, 1, 1))
    # Both exceed what half precision can hold, their product does not.
    layer.kernel.assign(tf.fill(layer.kernel.shape, 1e6))
    layer.moving_variance.assign([1e12, 1e12])
    outputs = layer(tf.ones([1, 1, 1, 1]))
    assert outputs.dtype == tf.float16
    np.testing.assert_allclose(outputs, 1.0, rtol=1e-3)


def test_config_round_trip():
    layer = FrozenNormConvolution(None, 5, 2, 0.02, tf.keras.initializers.Constant(0.5), name="layer")
    again = tf.keras.layers.deserialize(tf.keras.layers.serialize(layer))
    assert again.get_config() == layer.get_config()
    inputs = _normal(2, 6, 6, 3)
    np.testing.assert_array_equal(again(inputs), layer(inputs))
