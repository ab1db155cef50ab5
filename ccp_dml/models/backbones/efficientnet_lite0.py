"""EfficientNet-Lite0: the EfficientNet without squeeze-and-excitation and with ReLU6.

Architecture: Tan and Le, "EfficientNet: rethinking model scaling for convolutional neural networks", ICML
2019, table 1, with the changes of the Lite variants (fixed stem and head, ReLU6, no squeeze-and-excitation).
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import tensorflow as tf

from ccp_dml.models.backbones.layers import FrozenNormConvolution, layer_seeds

_EPSILON = 1e-3
_STEM_CHANNELS = 32
_HEAD_CHANNELS = 1280


class Stage(NamedTuple):
    """Inverted residual blocks of one resolution.

    Attributes:
        expansion: hidden channels per input channel of a block.
        channels: output channels.
        blocks: number of blocks.
        strides: step of the first block.
        kernel_size: side of the depthwise kernel.
    """

    expansion: int
    channels: int
    blocks: int
    strides: int
    kernel_size: int


STAGES = (
    Stage(1, 16, 1, 1, 3),
    Stage(6, 24, 2, 2, 3),
    Stage(6, 40, 2, 2, 5),
    Stage(6, 80, 3, 2, 3),
    Stage(6, 112, 3, 1, 5),
    Stage(6, 192, 4, 2, 5),
    Stage(6, 320, 1, 1, 3),
)


def efficientnet_lite0(images: tf.Tensor, *, frozen_norm: bool, seed: int = 0) -> tf.Tensor:
    """Applies the network.

    Args:
        images: scaled images [B, H, W, 3], about -1..1, of any size.
        frozen_norm: True to never train batch normalisation.
        seed: seed of the initial weights.

    Returns:
        Feature map [B, ceil(H / 32), ceil(W / 32), 1280].
    """
    convolution = _Convolution(frozen_norm, layer_seeds(seed))
    features = _relu6(convolution(images, _STEM_CHANNELS, 3, 2, "stem"), "stem")
    index = 0
    for stage in STAGES:
        for block in range(stage.blocks):
            strides = stage.strides if block == 0 else 1
            features = _inverted_residual(features, stage, strides, convolution, f"block{index}")
            index += 1
    return _relu6(convolution(features, _HEAD_CHANNELS, 1, 1, "head"), "head")


def _inverted_residual(
    inputs: tf.Tensor, stage: Stage, strides: int, convolution: _Convolution, name: str
) -> tf.Tensor:
    channels = inputs.shape[-1]
    hidden = inputs
    if stage.expansion > 1:
        hidden = convolution(hidden, channels * stage.expansion, 1, 1, f"{name}_expand")
        hidden = _relu6(hidden, f"{name}_expand")
    hidden = convolution(hidden, None, stage.kernel_size, strides, f"{name}_depthwise")
    hidden = _relu6(hidden, f"{name}_depthwise")
    outputs = convolution(hidden, stage.channels, 1, 1, f"{name}_project")
    if strides == 1 and channels == stage.channels:
        outputs = tf.keras.layers.Add(name=f"{name}_add")([inputs, outputs])
    return outputs


def _relu6(inputs: tf.Tensor, name: str) -> tf.Tensor:
    return tf.keras.layers.ReLU(6.0, name=f"{name}_relu6")(inputs)


class _Convolution:
    """Creates and applies a convolution with batch normalisation; depthwise if `filters` is None."""

    def __init__(self, frozen_norm: bool, seeds: Iterator[int]) -> None:
        self._frozen_norm = frozen_norm
        self._seeds = seeds

    def __call__(
        self, inputs: tf.Tensor, filters: int | None, kernel_size: int, strides: int, name: str
    ) -> tf.Tensor:
        seed = next(self._seeds)
        if self._frozen_norm:
            # All weights are loaded, so none are drawn.
            return FrozenNormConvolution(
                filters, kernel_size, strides, _EPSILON, kernel_initializer="zeros", name=name
            )(inputs)
        if filters is None:
            # Keras would count all channels in the fan-out, but each channel has its own kernel.
            deviation = (2.0 / kernel_size**2) ** 0.5
            layer = tf.keras.layers.DepthwiseConv2D(
                kernel_size,
                strides,
                "same",
                use_bias=False,
                depthwise_initializer=tf.keras.initializers.RandomNormal(0.0, deviation, seed),
                name=name,
            )
        else:
            layer = tf.keras.layers.Conv2D(
                filters,
                kernel_size,
                strides,
                "same",
                use_bias=False,
                kernel_initializer=tf.keras.initializers.VarianceScaling(2.0, "fan_out", seed=seed),
                name=name,
            )
        return tf.keras.layers.BatchNormalization(epsilon=_EPSILON, name=f"{name}_norm")(layer(inputs))
