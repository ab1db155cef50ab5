"""Reading BN-Inception from Keras model files, whose layers have names that say nothing."""

from __future__ import annotations

import numpy as np
import pytest
import tensorflow as tf

from ccp_dml.models.backbones import bn_inception_h5
from ccp_dml.models.backbones.bn_inception import bn_inception
from ccp_dml.models.backbones.bn_inception_h5 import read_bn_inception
from ccp_dml.models.backbones.bn_inception_layout import Convolution, convolutions

pytestmark = pytest.mark.filterwarnings("ignore:You are saving your model as an HDF5:UserWarning")

LAYOUT = [
    Convolution("a", 3, 4, 3),
    Convolution("b", 4, 5),
    Convolution("c", 4, 5, 3),
    Convolution("d", 5, 5),
]


def _keras_model(*, nested: bool, use_bias: bool = True) -> tf.keras.Model:
    """A network of the convolutions of LAYOUT: one after the other two branches, whose names say nothing."""
    layers = tf.keras.layers

    def unit(inputs, outputs, size, epsilon=0.02):
        convolved = layers.Conv2D(outputs, size, padding="same", use_bias=use_bias)(inputs)
        return layers.ReLU()(layers.BatchNormalization(epsilon=epsilon)(convolved))

    images = tf.keras.Input((None, None, 3))
    stem = unit(images, 4, 3)
    # Made in another order than they are concatenated in.
    long = unit(unit(stem, 5, 3), 5, 1)
    short = unit(stem, 5, 1)
    network = tf.keras.Model(images, layers.Concatenate()([short, layers.MaxPooling2D(2, 1, "same")(long)]))
    generator = np.random.default_rng(0)
    for variable in network.weights:
        variable.assign(generator.uniform(size=variable.shape))
    if not nested:
        return network
    outer = tf.keras.Input((8, 8, 3))
    return tf.keras.Model(outer, layers.Dense(2)(layers.GlobalAveragePooling2D()(network(outer))))


@pytest.mark.parametrize("nested, use_bias", [(False, True), (True, True), (False, False)])
def test_weights_are_found_by_the_graph_of_the_model(nested, use_bias, tmp_path, monkeypatch):
    model = _keras_model(nested=nested, use_bias=use_bias)
    model.save(tmp_path / "model.h5")
    monkeypatch.setattr(bn_inception_h5, "convolutions", lambda: iter(LAYOUT))
    arrays = read_bn_inception(tmp_path / "model.h5")

    network = next(layer for layer in model.layers if hasattr(layer, "layers")) if nested else model
    convolved = {layer.kernel.shape: layer for layer in network.layers if hasattr(layer, "kernel")}
    norms = [layer for layer in network.layers if hasattr(layer, "gamma")]
    for expected in LAYOUT:
        convolution = convolved[expected.kernel_shape]
        (norm,) = (layer for layer in norms if layer.input.node is convolution.output.node)
        np.testing.assert_array_equal(arrays[f"{expected.name}/kernel"], convolution.kernel)
        np.testing.assert_array_equal(
            arrays[f"{expected.name}/bias"], convolution.bias if use_bias else np.zeros(expected.outputs)
        )
        for weight in ("gamma", "beta", "moving_mean"):
            np.testing.assert_array_equal(arrays[f"{expected.name}/{weight}"], getattr(norm, weight))
        # The same result with this library's epsilon.
        variance = arrays[f"{expected.name}/moving_variance"] + 1e-5
        np.testing.assert_allclose(variance, norm.moving_variance + 0.02, rtol=1e-6)


def test_the_network_of_this_library_is_read_in_its_order():
    images = tf.keras.Input((None, None, 3))
    network = tf.keras.Model(images, bn_inception(images, frozen_norm=False))
    config = {"config": network.get_config()}
    layers = bn_inception_h5._layers(config)
    names = [name for name, _ in bn_inception_h5._convolutions(layers)]
    assert names == [layer.name for layer in convolutions()]


def test_other_files_are_refused(tmp_path, monkeypatch):
    text = tmp_path / "text.h5"
    text.write_text("weights")
    with pytest.raises(ValueError, match="cannot be read as a Keras model file"):
        read_bn_inception(text)
    _keras_model(nested=False).save(tmp_path / "model.h5")
    with pytest.raises(ValueError, match="has 4 convolutions.*BN-Inception has 69"):
        read_bn_inception(tmp_path / "model.h5")
    other = [LAYOUT[0], LAYOUT[2], LAYOUT[1], LAYOUT[3]]
    monkeypatch.setattr(bn_inception_h5, "convolutions", lambda: iter(other))
    with pytest.raises(
        ValueError, match=r"should be c, has the shape \(1, 1, 4, 5\); expected \(3, 3, 4, 5\)"
    ):
        read_bn_inception(tmp_path / "model.h5")
