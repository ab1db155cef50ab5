"""A residual network of pre-activation bottlenecks for small images.

He et al., "Identity mappings in deep residual networks", ECCV 2016, in the form that the authors of CCP use:
three stages of two bottlenecks with 64, 128 and 256 channels, batch normalisation and ReLU around every
convolution, and blocks that may be applied several times with the same weights.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import tensorflow as tf

from ccp_dml.models.backbones.layers import layer_seeds
from ccp_dml.models.backbones.options import CifarResNetOptions, activation_layers

Transform = Callable[[tf.Tensor], tf.Tensor]

_STEM_CHANNELS = 16
_NORM_RELU = "bn_relu"


def cifar_resnet(images: tf.Tensor, *, frozen_norm: bool = False, seed: int = 0, **options: Any) -> tf.Tensor:
    """Applies the network.

    Args:
        images: scaled images [B, H, W, 3] of any size, usually 32 pixels.
        frozen_norm: True to never train batch normalisation.
        seed: seed of the initial weights.
        **options: options of `CifarResNetOptions`.

    Returns:
        Feature map [B, ceil(H / 2^(stages - 1)), ceil(W / 2^(stages - 1)), 32 * 2^stages].

    Raises:
        ValueError: if an option is invalid.
    """
    return _Network(CifarResNetOptions(**options), frozen_norm, layer_seeds(seed))(images)


class _Network:
    """Creates and applies the layers in their order."""

    def __init__(self, options: CifarResNetOptions, frozen_norm: bool, seeds: Iterator[int]) -> None:
        self._options = options
        self._frozen_norm = frozen_norm
        self._seeds = seeds

    def __call__(self, images: tf.Tensor) -> tf.Tensor:
        options, channels = self._options, 4 * _STEM_CHANNELS
        stem = self._convolution(_STEM_CHANNELS, 3, 1, "stem", use_bias=True)
        features = self._activation(_NORM_RELU, "stem")(stem(images))
        for stage in range(options.stages):
            for block in range(options.blocks):
                name = f"stage{stage}_block{block}"
                if block == 0:
                    features = self._mapping(features, channels, stage, name)
                else:
                    features = self._repeated(features, channels, name)
            channels *= 2
        return self._activation(_NORM_RELU, "final")(features) if options.final_activation else features

    def _mapping(self, features: tf.Tensor, channels: int, stage: int, name: str) -> tf.Tensor:
        """Applies the first block of a stage, which changes resolution and channels by a linear shortcut."""
        strides = 2 if stage > 0 else 1
        reduced = channels // (2 if stage > 0 else 4)
        # The stem has just activated the input of the very first block.
        before, after = self._bottleneck(channels, reduced, strides, name, pre_activation=stage > 0)
        shortcut = self._linear(channels, strides, f"{name}_shortcut")
        return tf.keras.layers.Add(name=f"{name}_add")([shortcut(features), after(before(features))])

    def _repeated(self, features: tf.Tensor, channels: int, name: str) -> tf.Tensor:
        """Applies another block, several times with the same weights."""
        before, after = self._bottleneck(channels, channels // 2, 1, name, pre_activation=True)
        injected = None
        if self._options.input_injection:
            activation = self._activation(self._options.pre_activation, f"{name}_injection")
            injected = self._linear(channels // 2, 1, f"{name}_injection")(activation(features))
        for _ in range(self._options.block_repeats):
            reduced = before(features)
            if injected is not None:
                reduced = tf.keras.layers.Add()([reduced, injected])
            features = tf.keras.layers.Add()([features, after(reduced)])
        return features

    def _bottleneck(
        self, channels: int, reduced: int, strides: int, name: str, *, pre_activation: bool
    ) -> tuple[Transform, Transform]:
        """Creates the two halves of a block: up to the reduction, and from there."""
        options = self._options
        before = [
            *([self._activation(options.pre_activation, f"{name}_pre")] if pre_activation else []),
            self._linear(reduced, strides, f"{name}_reduce"),
        ]
        after = [
            self._activation(options.mid_activation, f"{name}_mid"),
            self._convolution(reduced, 3, 1, f"{name}_conv"),
            self._activation(options.post_activation, f"{name}_post"),
            self._convolution(channels, 1, 1, f"{name}_expand", zero_mean=options.zero_mean_kernel),
        ]
        return _sequence(before), _sequence(after)

    def _linear(self, filters: int, strides: int, name: str) -> Transform:
        """Creates a convolution of single positions that divides the resolution by `strides`."""
        if self._options.decimation == "avg" and strides > 1:
            pool = tf.keras.layers.AveragePooling2D(strides, strides, "same", name=f"{name}_pool")
            return _sequence([pool, self._convolution(filters, 1, 1, name)])
        kernel_size = strides if self._options.decimation == "conv" else 1
        return self._convolution(filters, kernel_size, strides, name)

    def _activation(self, activation: str, name: str) -> Transform:
        layers = []
        for step in activation_layers(activation):
            if step == "bn":
                layers.append(
                    tf.keras.layers.BatchNormalization(trainable=not self._frozen_norm, name=f"{name}_norm")
                )
            elif step == "ln":
                layers.append(tf.keras.layers.LayerNormalization(name=f"{name}_layer_norm"))
            else:
                layers.append(tf.keras.layers.Activation(step))
        return _sequence(layers)

    def _convolution(
        self,
        filters: int,
        kernel_size: int,
        strides: int,
        name: str,
        use_bias: bool = False,
        zero_mean: bool = False,
    ) -> Transform:
        return tf.keras.layers.Conv2D(
            filters,
            kernel_size,
            strides,
            "same",
            use_bias=use_bias,
            kernel_initializer=tf.keras.initializers.GlorotUniform(seed=next(self._seeds)),
            kernel_constraint=ZeroMean() if zero_mean else None,
            name=name,
        )


@tf.keras.utils.register_keras_serializable("ccp_dml")
class ZeroMean(tf.keras.constraints.Constraint):
    """Subtracts from a kernel [k, k, inputs, outputs] its mean over the inputs, after each update."""

    def __call__(self, kernel: tf.Tensor) -> tf.Tensor:
        """Returns the centred kernel."""
        return kernel - tf.reduce_mean(kernel, axis=2, keepdims=True)


def _sequence(layers: list[Transform]) -> Transform:
    def apply(features: tf.Tensor) -> tf.Tensor:
        for layer in layers:
            features = layer(features)
        return features

    return apply
