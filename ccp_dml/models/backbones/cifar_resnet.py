"""A residual network of pre-activation bottlenecks for small images.

After He et al., Identity Mappings in Deep Residual Networks, ECCV 2016, in the form that the CCP authors use:
three stages of two bottlenecks with 64, 128 and 256 channels, batch normalisation and ReLU around every
convolution, and blocks that may be applied several times with the same weights.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

import tensorflow as tf

from ccp_dml.models.backbones.seeds import layer_seeds

Transform = Callable[[tf.Tensor], tf.Tensor]

_STEM_CHANNELS = 16


def cifar_resnet(
    images: tf.Tensor,
    *,
    pretrained: bool = False,
    seed: int = 0,
    stages: int = 3,
    blocks: int = 2,
    block_repeats: int = 1,
) -> tf.Tensor:
    """Applies the network.

    Args:
        images: scaled images [B, H, W, 3] of any size; 32 pixels are usual.
        pretrained: must be False, there are no weights to load.
        seed: of the initial weights.
        stages: number of stages; the first keeps the resolution, each later one halves it and doubles the
            channels.
        blocks: number of blocks of a stage, the first of which changes the number of channels.
        block_repeats: how often each of the other blocks is applied, with the same weights.

    Returns:
        Feature map [B, ceil(H / 2^(stages - 1)), ceil(W / 2^(stages - 1)), 32 * 2^stages].

    Raises:
        ValueError: if pretrained weights are asked for or a number is below 1.
    """
    if pretrained:
        raise ValueError("cifar_resnet has no pretrained weights; random ones are expected.")
    if min(stages, blocks, block_repeats) < 1:
        raise ValueError(
            f"stages, blocks and block_repeats are {stages}, {blocks} and {block_repeats}; "
            "at least 1 is expected."
        )
    seeds = layer_seeds(seed)
    channels = 4 * _STEM_CHANNELS
    stem = _convolution(_STEM_CHANNELS, 3, 1, seeds, "stem", use_bias=True)
    features = _norm_relu("stem")(stem(images))
    for stage in range(stages):
        for block in range(blocks):
            name = f"stage{stage}_block{block}"
            first_of_stage, first = block == 0, stage == block == 0
            strides = 2 if first_of_stage and stage > 0 else 1
            reduced = channels // (4 if first else 2)
            # The stem has just activated what the very first block receives.
            bottleneck = _bottleneck(channels, reduced, strides, seeds, name, pre_activation=not first)
            if first_of_stage:
                shortcut = _convolution(channels, 1, strides, seeds, f"{name}_shortcut")
                features = tf.keras.layers.Add()([shortcut(features), bottleneck(features)])
            else:
                for _ in range(block_repeats):
                    features = tf.keras.layers.Add()([features, bottleneck(features)])
        channels *= 2
    return _norm_relu("final")(features)


def _bottleneck(
    channels: int, reduced: int, strides: int, seeds: Iterator[int], name: str, *, pre_activation: bool
) -> Transform:
    layers = [
        *([_norm_relu(f"{name}_pre")] if pre_activation else []),
        _convolution(reduced, 1, strides, seeds, f"{name}_reduce"),
        _norm_relu(f"{name}_mid"),
        _convolution(reduced, 3, 1, seeds, f"{name}_conv"),
        _norm_relu(f"{name}_post"),
        _convolution(channels, 1, 1, seeds, f"{name}_expand"),
    ]

    def apply(features: tf.Tensor) -> tf.Tensor:
        for layer in layers:
            features = layer(features)
        return features

    return apply


def _norm_relu(name: str) -> Transform:
    norm = tf.keras.layers.BatchNormalization(name=f"{name}_norm")
    return lambda features: tf.keras.layers.ReLU()(norm(features))


def _convolution(
    filters: int, kernel_size: int, strides: int, seeds: Iterator[int], name: str, use_bias: bool = False
) -> Transform:
    return tf.keras.layers.Conv2D(
        filters,
        kernel_size,
        strides,
        "same",
        use_bias=use_bias,
        kernel_initializer=tf.keras.initializers.GlorotUniform(seed=next(seeds)),
        name=name,
    )
