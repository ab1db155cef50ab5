"""BN-Inception, the backbone of the paper; see `bn_inception_layout` for its source."""

from __future__ import annotations

import os
from collections.abc import Iterator

import tensorflow as tf

from ccp_dml.models.backbones.bn_inception_h5 import read_bn_inception
from ccp_dml.models.backbones.bn_inception_layout import BLOCKS, EPSILON, STEM, Block, Convolution
from ccp_dml.models.backbones.frozen_norm_convolution import FrozenNormConvolution
from ccp_dml.models.backbones.seeds import layer_seeds
from ccp_dml.models.backbones.weights_file import assign_arrays

_MOMENTUM = 0.9


def bn_inception(images: tf.Tensor, *, frozen_norm: bool, seed: int = 0) -> tf.Tensor:
    """Applies the network.

    Padding is that of the published network: on both sides for convolutions; pooling with step 2 pads at the
    bottom and on the right only, and only where a window would be incomplete.

    Args:
        images: BGR images [B, H, W, 3] in 0..255 less their mean, of any size.
        frozen_norm: whether batch normalisation is never trained.
        seed: of the initial weights.

    Returns:
        Feature map [B, h, w, 1024], h being about H / 32: 7 for 224 and for 227 pixels.
    """
    convolution = _Convolution(frozen_norm, layer_seeds(seed))
    features = _max_pool(convolution(images, STEM[0]), "pool1_3x3_s2")
    for layer in STEM[1:]:
        features = convolution(features, layer)
    features = _max_pool(features, "pool2_3x3_s2")
    for block in BLOCKS:
        features = _inception(features, block, convolution)
    return features


def _inception(inputs: tf.Tensor, block: Block, convolution: _Convolution) -> tf.Tensor:
    outputs = []
    for index, branch in enumerate(block.branches):
        features = inputs
        if index == len(block.branches) - 1:
            features = _branch_pool(inputs, block)
        for layer in branch:
            features = convolution(features, layer)
        outputs.append(features)
    return tf.keras.layers.Concatenate(name=f"{block.name}_output")(outputs)


def _branch_pool(inputs: tf.Tensor, block: Block) -> tf.Tensor:
    name = f"{block.name}_pool"
    if block.strides == 2:
        return _max_pool(inputs, name)
    if block.average:
        # Zeros beyond the border count in the average, which 'same' would leave out.
        padded = tf.keras.layers.ZeroPadding2D(1, name=f"{name}_pad")(inputs)
        return tf.keras.layers.AveragePooling2D(3, 1, name=name)(padded)
    return tf.keras.layers.MaxPooling2D(3, 1, "same", name=name)(inputs)


def _max_pool(inputs: tf.Tensor, name: str) -> tf.Tensor:
    return CeilMaxPooling(name=name)(inputs)


@tf.keras.utils.register_keras_serializable("ccp_dml")
class CeilMaxPooling(tf.keras.layers.Layer):
    """The maximum over 3x3 positions with step 2; incomplete windows at the bottom and on the right count.

    A side of n positions becomes ceil((n - 3) / 2) + 1, at least 1.
    """

    def call(self, inputs: tf.Tensor) -> tf.Tensor:
        """Returns the maxima of [B, H, W, F]."""
        height, width = (_missing(inputs, axis) for axis in (1, 2))
        # What is pooled has passed a ReLU, so that zeros change no maximum.
        padded = tf.pad(inputs, [[0, 0], [0, height], [0, width], [0, 0]])
        return tf.nn.max_pool2d(padded, 3, 2, "VALID")

    def compute_output_shape(self, input_shape: tf.TensorShape) -> tf.TensorShape:
        """[B, h, w, F]; unknown sides stay unknown."""
        batch, *sides, channels = input_shape
        pooled = [None if side is None else max(1, -(-(side - 3) // 2) + 1) for side in sides]
        return tf.TensorShape([batch, *pooled, channels])


def _missing(inputs: tf.Tensor, axis: int) -> int | tf.Tensor:
    """Positions that complete the last window of 3 with step 2."""
    if inputs.shape[axis] is not None:
        return max(3 - inputs.shape[axis], 1 - inputs.shape[axis] % 2)
    size = tf.shape(inputs)[axis]
    return tf.maximum(3 - size, 1 - size % 2)


class _Convolution:
    """Applies a new convolution with batch normalisation and ReLU."""

    def __init__(self, frozen_norm: bool, seeds: Iterator[int]) -> None:
        self._frozen_norm = frozen_norm
        self._seeds = seeds

    def __call__(self, inputs: tf.Tensor, layer: Convolution) -> tf.Tensor:
        seed = next(self._seeds)
        if self._frozen_norm:
            outputs = FrozenNormConvolution(
                layer.outputs,
                layer.kernel_size,
                layer.strides,
                EPSILON,
                # Loading sets every weight, so that there is nothing to draw.
                kernel_initializer="zeros",
                symmetric_padding=True,
                use_bias=True,
                name=layer.name,
            )(inputs)
        else:
            outputs = self._trainable(inputs, layer, seed)
        return tf.keras.layers.ReLU(name=f"{layer.name}_relu")(outputs)

    @staticmethod
    def _trainable(inputs: tf.Tensor, layer: Convolution, seed: int) -> tf.Tensor:
        padding = "same"
        if layer.strides > 1:
            margin = (layer.kernel_size - 1) // 2
            inputs = tf.keras.layers.ZeroPadding2D(margin, name=f"{layer.name}_pad")(inputs)
            padding = "valid"
        convolved = tf.keras.layers.Conv2D(
            layer.outputs,
            layer.kernel_size,
            layer.strides,
            padding,
            kernel_initializer=tf.keras.initializers.HeNormal(seed=seed),
            name=layer.name,
        )(inputs)
        return tf.keras.layers.BatchNormalization(
            momentum=_MOMENTUM, epsilon=EPSILON, name=f"{layer.name}_norm"
        )(convolved)


def load_bn_inception_h5(model: tf.keras.Model, path: str | os.PathLike[str]) -> None:
    """Sets the weights of the network from a Keras model file of the authors of CCP.

    Raises:
        ValueError: if it is no such file, or its network is another.
    """
    assign_arrays(model, read_bn_inception(path), path)
