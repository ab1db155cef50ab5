"""The residual network for small images: shapes, options, and blocks against their formulas."""

from __future__ import annotations

import numpy as np
import pytest
import tensorflow as tf

from ccp_dml.models.backbones.cifar_resnet import cifar_resnet


def _model(**options) -> tf.keras.Model:
    images = tf.keras.Input((32, 32, 3))
    return tf.keras.Model(images, cifar_resnet(images, **options))


def test_shapes_and_number_of_weights():
    model = _model()
    assert model.output_shape == (None, 8, 8, 256)
    # Counted by hand: (kernel of the shortcut, reduction, 3x3, expansion), then the normalisations.
    kernels = 3 * 9 * 16 + 16
    for shortcut, inputs, reduced, outputs in [
        (True, 16, 16, 64),
        (False, 64, 32, 64),
        (True, 64, 64, 128),
        (False, 128, 64, 128),
        (True, 128, 128, 256),
        (False, 256, 128, 256),
    ]:
        kernels += shortcut * inputs * outputs + inputs * reduced + 9 * reduced**2 + reduced * outputs
    pre = 64 + 64 + 128 + 128 + 256
    norms = 16 + pre + 2 * (16 + 32 + 64 + 64 + 128 + 128) + 256
    assert model.count_params() == kernels + 4 * norms


def test_sizes_follow_the_options():
    assert _model(stages=2, blocks=1).output_shape == (None, 16, 16, 128)


def test_repeats_share_weights_and_change_the_result():
    once, thrice = _model(seed=1), _model(seed=1, block_repeats=3)
    assert once.count_params() == thrice.count_params()
    thrice.set_weights(once.get_weights())
    images = np.random.default_rng(0).normal(size=(1, 32, 32, 3)).astype(np.float32)
    assert np.abs(once(images) - thrice(images)).max() > 0.01


def test_a_bottleneck_computes_what_its_weights_say():
    model = _model(stages=1, blocks=1)
    images = np.random.default_rng(0).normal(size=(1, 32, 32, 3)).astype(np.float32)

    def convolve(inputs, name):
        return tf.nn.conv2d(inputs, model.get_layer(name).kernel, 1, "SAME")

    def activate(inputs):
        # Fresh statistics: mean 0, variance 1.
        return np.maximum(inputs / np.sqrt(1 + 1e-3), 0)

    stem = activate(convolve(images, "stem"))
    block = convolve(stem, "stage0_block0_reduce")
    block = convolve(activate(block), "stage0_block0_conv")
    block = convolve(activate(block), "stage0_block0_expand")
    expected = activate(convolve(stem, "stage0_block0_shortcut") + block)
    np.testing.assert_allclose(model(images), expected, rtol=1e-4, atol=1e-5)


def test_repeats_with_injection_compute_what_their_weights_say():
    model = _model(stages=1, block_repeats=2, input_injection=True, pre_activation="none")
    images = np.random.default_rng(0).normal(size=(1, 32, 32, 3)).astype(np.float32)

    def convolve(inputs, name):
        return tf.nn.conv2d(inputs, model.get_layer(f"stage0_block1_{name}").kernel, 1, "SAME")

    def activate(inputs):
        return np.maximum(inputs / np.sqrt(1 + 1e-3), 0)

    start = tf.keras.Model(model.input, model.get_layer("stage0_block0_add").output)(images)
    features = start
    for _ in range(2):
        reduced = convolve(features, "reduce") + convolve(start, "injection")
        features += convolve(activate(convolve(activate(reduced), "conv")), "expand")
    np.testing.assert_allclose(model(images), activate(features), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("decimation, side", [("skip", 1), ("avg", 1), ("conv", 2)])
def test_ways_to_halve_the_resolution(decimation, side):
    model = _model(stages=2, blocks=1, decimation=decimation)
    assert model.output_shape == (None, 16, 16, 128)
    shortcut = model.get_layer("stage1_block0_shortcut")
    assert shortcut.kernel.shape[:2] == (side, side)
    inputs = np.random.default_rng(0).normal(size=(1, 32, 32, 64)).astype(np.float32)
    below = tf.keras.Model(model.get_layer("stage0_block0_add").output, shortcut.output)
    blocks = inputs.reshape(1, 16, 2, 16, 2, 64).transpose(0, 1, 3, 2, 4, 5)
    kernel = shortcut.kernel.numpy()
    if decimation == "conv":
        expected = np.einsum("bhwyxi,yxio->bhwo", blocks, kernel)
    else:
        chosen = blocks[:, :, :, 0, 0] if decimation == "skip" else blocks.mean((3, 4))
        expected = chosen @ kernel[0, 0]
    np.testing.assert_allclose(below(inputs), expected, rtol=1e-3, atol=1e-4)


def test_activations_are_sequences_of_steps():
    plain = _model(final_activation=False, mid_activation="ln_softplus", post_activation="none")
    kinds = [type(layer).__name__ for layer in plain.layers]
    assert kinds.count("LayerNormalization") == 6
    # The stem's, and that before each block but the first.
    assert kinds.count("BatchNormalization") == 6
    activations = [layer.activation.__name__ for layer in plain.layers if hasattr(layer, "activation")]
    assert activations.count("softplus") == 6
    assert activations.count("relu") == 6


def test_zero_mean_kernels_are_centred_by_updates():
    model = _model(stages=1, blocks=1, zero_mean_kernel=True)
    (kernel,) = model.get_layer("stage0_block0_expand").trainable_variables
    assert np.abs(kernel.numpy().mean(2)).max() > 1e-3
    tf.keras.optimizers.SGD(0.1).apply_gradients([(tf.ones_like(kernel), kernel)])
    assert np.abs(kernel.numpy().mean(2)).max() < 1e-6


def test_frozen_normalisation_stays():
    model = _model(frozen_norm=True)
    images = np.random.default_rng(0).normal(size=(1, 32, 32, 3)).astype(np.float32)
    np.testing.assert_array_equal(model(images, training=True), model(images, training=False))
    assert not any("norm" in variable.name for variable in model.trainable_variables)


def test_options_out_of_range_are_refused():
    with pytest.raises(ValueError, match="at least 1"):
        _model(block_repeats=0)
