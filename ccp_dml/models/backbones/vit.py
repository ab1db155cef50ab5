"""Vision transformers: DINO's, DINOv2's and the image tower of CLIP, for images of any size.

Dosovitskiy et al., "An image is worth 16x16 words", ICLR 2021; Caron et al., "Emerging properties in
self-supervised vision transformers", ICCV 2021; Oquab et al., "DINOv2", 2023 (arXiv 2304.07193); Radford et
al., "Learning transferable visual models from natural language supervision", ICML 2021.
"""

from __future__ import annotations

from typing import Any

import tensorflow as tf

from ccp_dml.models.backbones.layers import layer_seeds
from ccp_dml.models.backbones.vit_layout import VARIANTS, VitVariant

_EPSILON, _CLIP_EPSILON = 1e-6, 1e-5
# Of the cubic kernel of PyTorch.
_CUBIC = -0.75


def vit(images: tf.Tensor, *, frozen_norm: bool, seed: int, variant: str, pooling: str) -> tf.Tensor:
    """Applies the network.

    Args:
        images: scaled images [B, H, W, 3]; rows and columns beyond the last complete patch are left out.
        frozen_norm: not used, as there is no batch normalisation.
        seed: seed of the initial weights.
        variant: a name of `VARIANTS`.
        pooling: "cls" for the class token, "mean" for the mean of the patches.

    Returns:
        Features [B, D]; of CLIP with the class token, its projection.
    """
    del frozen_norm
    return apply_variant(images, VARIANTS[variant], pooling, seed)


def apply_variant(images: tf.Tensor, variant: VitVariant, pooling: str, seed: int) -> tf.Tensor:
    """Applies a transformer of any dimensions; see `vit`."""
    seeds = layer_seeds(seed)
    epsilon = _CLIP_EPSILON if variant.clip else _EPSILON

    def initializer() -> tf.keras.initializers.Initializer:
        return tf.keras.initializers.TruncatedNormal(stddev=0.02, seed=next(seeds))

    def dense(units: int, name: str, **options: Any) -> tf.keras.layers.Layer:
        return tf.keras.layers.Dense(units, kernel_initializer=initializer(), name=name, **options)

    def norm(name: str) -> tf.keras.layers.Layer:
        return tf.keras.layers.LayerNormalization(epsilon=epsilon, name=name)

    patches = tf.keras.layers.Conv2D(
        variant.width,
        variant.patch,
        strides=variant.patch,
        use_bias=not variant.clip,
        kernel_initializer=initializer(),
        name="patches",
    )(images)
    x = Tokens(variant.grid, seed=next(seeds), name="tokens")(patches)
    if variant.clip:
        x = norm("norm_pre")(x)
    for block in range(variant.depth):
        name = f"block{block}"
        y = dense(3 * variant.width, f"{name}_qkv")(norm(f"{name}_norm1")(x))
        y = SelfAttention(variant.heads, name=f"{name}_attention")(y)
        y = dense(variant.width, f"{name}_attention_output")(y)
        if variant.layer_scale:
            y = LayerScale(name=f"{name}_scale1")(y)
        x = tf.keras.layers.Add(name=f"{name}_add1")([x, y])
        activation = quick_gelu if variant.clip else "gelu"
        y = dense(4 * variant.width, f"{name}_mlp1", activation=activation)(norm(f"{name}_norm2")(x))
        y = dense(variant.width, f"{name}_mlp2")(y)
        if variant.layer_scale:
            y = LayerScale(name=f"{name}_scale2")(y)
        x = tf.keras.layers.Add(name=f"{name}_add2")([x, y])
    x = TokenPooling(pooling, name="token_pooling")(norm("norm")(x))
    return dense(variant.projected, "projection", use_bias=False)(x) if variant.clip else x


@tf.keras.utils.register_keras_serializable("ccp_dml")
def quick_gelu(x: tf.Tensor) -> tf.Tensor:
    """Computes x · sigmoid(1.702 x), CLIP's approximation of the GELU."""
    return x * tf.sigmoid(1.702 * x)


@tf.keras.utils.register_keras_serializable("ccp_dml")
class Tokens(tf.keras.layers.Layer):
    """Makes tokens of patches [B, h, w, D]: a class token first, and position embeddings added to all.

    The position embeddings belong to a grid of g x g patches. For another grid they are interpolated by cubic
    convolution with a = -0.75 at half-pixel centres, without antialiasing, as PyTorch's `interpolate` does.

    Args:
        grid: g.
        seed: seed of the initial values.
    """

    def __init__(self, grid: int, seed: int = 0, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.grid, self.seed = grid, seed

    def build(self, input_shape: tf.TensorShape) -> None:
        """Creates the class token and the position embeddings."""
        width = input_shape[-1]
        initializer = tf.keras.initializers.TruncatedNormal(stddev=0.02, seed=self.seed)
        shape = (1, 1 + self.grid**2, width)
        self.class_token = self.add_weight("class_token", (1, 1, width), initializer="zeros")
        self.position_embedding = self.add_weight("position_embedding", shape, initializer=initializer)
        super().build(input_shape)

    def call(self, patches: tf.Tensor) -> tf.Tensor:
        """Returns the tokens [B, 1 + h·w, D]."""
        batch, height, width, channels = tf.unstack(tf.shape(patches))
        flat = tf.reshape(patches, [batch, height * width, patches.shape[-1]])
        first = tf.repeat(tf.cast(self.class_token, flat.dtype), batch, axis=0)
        tokens = tf.concat([first, flat], axis=1)
        if patches.shape[1:3] == (self.grid, self.grid):
            return tokens + tf.cast(self.position_embedding, tokens.dtype)
        table = tf.cast(self.position_embedding, tf.float32)
        square = tf.reshape(table[0, 1:], [self.grid, self.grid, patches.shape[-1]])
        resized = tf.einsum(
            "ha,wb,abd->hwd", cubic_matrix(height, self.grid), cubic_matrix(width, self.grid), square
        )
        positions = tf.concat([table[0, :1], tf.reshape(resized, [height * width, channels])], axis=0)
        return tokens + tf.cast(positions, tokens.dtype)

    def get_config(self) -> dict[str, Any]:
        """Returns the arguments of the layer."""
        return {**super().get_config(), "grid": self.grid, "seed": self.seed}


def cubic_matrix(outputs: tf.Tensor, inputs: int) -> tf.Tensor:
    """Returns the matrix float32 [outputs, inputs] that resizes a line by cubic convolution (Keys, 1981)."""
    scale = inputs / tf.cast(outputs, tf.float32)
    places = (tf.range(tf.cast(outputs, tf.float32)) + 0.5) * scale - 0.5
    first = tf.floor(places)
    fraction = places - first
    matrix = tf.zeros([outputs, inputs])
    for tap in range(-1, 3):
        distance = tf.abs(fraction - tap)
        near = ((_CUBIC + 2) * distance - (_CUBIC + 3)) * distance**2 + 1
        far = ((_CUBIC * distance - 5 * _CUBIC) * distance + 8 * _CUBIC) * distance - 4 * _CUBIC
        weights = tf.where(distance <= 1, near, far)
        place = tf.clip_by_value(tf.cast(first, tf.int32) + tap, 0, inputs - 1)
        matrix += weights[:, tf.newaxis] * tf.one_hot(place, inputs)
    return matrix


@tf.keras.utils.register_keras_serializable("ccp_dml")
class SelfAttention(tf.keras.layers.Layer):
    """Multi-head attention of tokens to each other, given their queries, keys and values.

    Args:
        heads: number of heads, a divisor of D.
    """

    def __init__(self, heads: int, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.heads = heads

    def call(self, qkv: tf.Tensor) -> tf.Tensor:
        """Returns [B, T, D] for the concatenated queries, keys and values [B, T, 3D]."""
        batch, tokens = tf.unstack(tf.shape(qkv)[:2])
        width = qkv.shape[-1] // 3
        size = width // self.heads
        split = tf.reshape(qkv, [batch, tokens, 3, self.heads, size])
        queries, keys, values = tf.unstack(tf.transpose(split, [2, 0, 3, 1, 4]))
        scores = tf.matmul(queries * size**-0.5, keys, transpose_b=True)
        weights = tf.cast(tf.nn.softmax(tf.cast(scores, tf.float32)), values.dtype)
        return tf.reshape(tf.transpose(tf.matmul(weights, values), [0, 2, 1, 3]), [batch, tokens, width])

    def get_config(self) -> dict[str, Any]:
        """Returns the arguments of the layer."""
        return {**super().get_config(), "heads": self.heads}


@tf.keras.utils.register_keras_serializable("ccp_dml")
class LayerScale(tf.keras.layers.Layer):
    """Multiplies each channel by a trained factor."""

    def build(self, input_shape: tf.TensorShape) -> None:
        """Creates the factors."""
        initializer = tf.keras.initializers.Constant(1e-5)
        self.gamma = self.add_weight("gamma", input_shape[-1:], initializer=initializer)
        super().build(input_shape)

    def call(self, inputs: tf.Tensor) -> tf.Tensor:
        """Returns the scaled tokens."""
        return inputs * tf.cast(self.gamma, inputs.dtype)


@tf.keras.utils.register_keras_serializable("ccp_dml")
class TokenPooling(tf.keras.layers.Layer):
    """Returns one vector [B, D] of the tokens [B, 1 + N, D].

    Args:
        pooling: "cls" for the class token, "mean" for the mean of all others.
    """

    def __init__(self, pooling: str, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.pooling = pooling

    def call(self, tokens: tf.Tensor) -> tf.Tensor:
        """Returns the vector."""
        return tokens[:, 0] if self.pooling == "cls" else tf.reduce_mean(tokens[:, 1:], axis=1)

    def get_config(self) -> dict[str, Any]:
        """Returns the arguments of the layer."""
        return {**super().get_config(), "pooling": self.pooling}
