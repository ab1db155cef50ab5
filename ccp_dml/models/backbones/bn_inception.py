"""BN-Inception, the backbone of the paper; `bn_inception_layout` names its source."""

from __future__ import annotations

from collections.abc import Iterator

import tensorflow as tf

from ccp_dml.models.backbones.bn_inception_layout import BLOCKS, EPSILON, STEM, Block, Convolution
from ccp_dml.models.backbones.layers import FrozenNormConvolution, layer_seeds

_MOMENTUM = 0.9


def bn_inception(images: tf.Tensor, *, frozen_norm: bool, seed: int = 0) -> tf.Tensor:
    """Applies the network.

    Padding follows the published network: convolutions pad all sides; pooling with step 2 pads at the bottom
    and on the right only, where a window would be incomplete.

    Args:
        images: BGR images [B, H, W, 3] in 0..255 minus their mean, of any size.
        frozen_norm: True to never train batch normalisation.
        seed: seed of the initial weights.

    Returns:
        Feature map [B, h, w, 1024], h being about H / 32: 7 for 224 and for 227 pixels.
    """
    convolution = _Convolution(frozen_norm, layer_seeds(seed))
    features = CeilMaxPooling(name="pool1_3x3_s2")(convolution(images, STEM[0]))
    for layer in STEM[1:]:
        features = convolution(features, layer)
    features = CeilMaxPooling(name="pool2_3x3_s2")(features)
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
        return CeilMaxPooling(name=name)(inputs)
    if block.average:
        # Zeros beyond the border count in the average; 'same' would leave them out.
        padded = tf.keras.layers.ZeroPadding2D(1, name=f"{name}_pad")(inputs)
        return tf.keras.layers.AveragePooling2D(3, 1, name=name)(padded)
    return tf.keras.layers.MaxPooling2D(3, 1, "same", name=name)(inputs)


@tf.keras.utils.register_keras_serializable("ccp_dml")
class CeilMaxPooling(tf.keras.layers.Layer):
    """Maximum pooling over 3x3 positions with step 2; incomplete windows at the border count, too.

    A side of n positions becomes ceil((n - 3) / 2) + 1, at least 1.
    """

    def call(self, inputs: tf.Tensor) -> tf.Tensor:
        """Returns the maxima of [B, H, W, F]."""
        height, width = (_missing(inputs, axis) for axis in (1, 2))
        # The features have passed a ReLU, so that zeros change no maximum.
        padded = tf.pad(inputs, [[0, 0], [0, height], [0, width], [0, 0]])
        return tf.nn.max_pool2d(padded, 3, 2, "VALID")

    def compute_output_shape(self, input_shape: tf.TensorShape) -> tf.TensorShape:
        """Returns [B, h, w, F]; unknown sides stay unknown."""
        batch, *sides, channels = input_shape
        pooled = [None if side is None else max(1, -(-(side - 3) // 2) + 1) for side in sides]
        return tf.TensorShape([batch, *pooled, channels])


def _missing(inputs: tf.Tensor, axis: int) -> int | tf.Tensor:
    """Number of positions that complete the last window of 3 with step 2."""
    if inputs.shape[axis] is not None:
        return max(3 - inputs.shape[axis], 1 - inputs.shape[axis] % 2)
    size = tf.shape(inputs)[axis]
    return tf.maximum(3 - size, 1 - size % 2)


class _Convolution:
    """Creates and applies a convolution with batch normalisation and ReLU."""

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
                # All weights are loaded, so none are drawn.
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
