"""Keras layers around a backbone, in the order of the data: pixel scaling, global pooling, normalisation.

All of them compute in float32 under every precision policy.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import tensorflow as tf

from ccp_dml.geometry import check_normalization, normalize
from ccp_dml.models.options import POOLINGS

_GEM_START = 3.0
_SMALLEST_FEATURE = 1e-6


@tf.keras.utils.register_keras_serializable("ccp_dml")
class PixelScaling(tf.keras.layers.Layer):
    """Computes `scale * (images / 255 - mean) / std` per channel, then reverses the channels if asked.

    Attributes:
        mean: three numbers, in units of the full pixel range (0..1), in RGB order.
        std: three positive numbers, in the same units and order.
        scale: factor on the result.
        reverse_channels: True to turn RGB into BGR.

    Example:
        >>> scaling = PixelScaling(mean=(0.5, 0.5, 0.5), std=(0.5, 0.5, 0.5))
        >>> scaling(tf.constant([[0.0, 127.5, 255.0]])).numpy().tolist()
        [[-1.0, 0.0, 1.0]]
    """

    def __init__(
        self,
        mean: Sequence[float] = (0.0, 0.0, 0.0),
        std: Sequence[float] = (1.0, 1.0, 1.0),
        scale: float = 1.0,
        reverse_channels: bool = False,
        **kwargs: Any,
    ) -> None:
        """Creates the layer.

        Args:
            mean: subtracted from the pixels, per channel.
            std: divides the pixels, per channel.
            scale: factor on the result.
            reverse_channels: True to turn RGB into BGR.
            **kwargs: `name` of a Keras layer.

        Raises:
            ValueError: if mean or std do not have three elements, or an element of std is not positive.
        """
        # Half precision would round the pixels before they are centred.
        kwargs["dtype"] = "float32"
        super().__init__(**kwargs)
        self.mean = tuple(float(value) for value in mean)
        self.std = tuple(float(value) for value in std)
        self.scale = float(scale)
        self.reverse_channels = bool(reverse_channels)
        if len(self.mean) != 3 or len(self.std) != 3:
            raise ValueError(
                f"mean is {self.mean} and std is {self.std}; expected three elements each, R, G, B"
            )
        if min(self.std) <= 0:
            raise ValueError(f"std is {self.std}; expected positive numbers")

    def call(self, inputs: tf.Tensor) -> tf.Tensor:
        """Scales RGB images, float [..., 3] in 0..255; returns float32 images of the same shape."""
        # In units of pixels the result is exact where the constants are, as in (x - 127) / 128.
        offset = np.asarray(self.mean, np.float64) * 255.0
        factor = self.scale / (np.asarray(self.std, np.float64) * 255.0)
        scaled = (inputs - offset.astype(np.float32)) * factor.astype(np.float32)
        return tf.reverse(scaled, axis=[-1]) if self.reverse_channels else scaled

    def compute_output_shape(self, input_shape: Any) -> Any:
        """Returns the shape of the input."""
        return input_shape

    def get_config(self) -> dict[str, Any]:
        """Returns the arguments of the layer."""
        return {
            **super().get_config(),
            "mean": list(self.mean),
            "std": list(self.std),
            "scale": self.scale,
            "reverse_channels": self.reverse_channels,
        }


@tf.keras.utils.register_keras_serializable("ccp_dml")
class GlobalPooling(tf.keras.layers.Layer):
    """Pools feature maps [B, H, W, F] over their positions to float32 [B, F]; see `pool`.

    Attributes:
        kind: one of `POOLINGS`.
        power: for `'gem'` the trainable power, a float32 scalar that starts at 3; else None.

    Example:
        >>> features = tf.reshape([1.0, 2.0, 3.0, 6.0], [1, 2, 2, 1])
        >>> float(GlobalPooling("average")(features)), float(GlobalPooling("max")(features))
        (3.0, 6.0)
    """

    def __init__(self, kind: str = "average", **kwargs: Any) -> None:
        """Creates the layer.

        Args:
            kind: one of `POOLINGS`, see `pool`.
            **kwargs: `name` of a Keras layer.

        Raises:
            ValueError: if the kind is unknown.
        """
        kwargs["dtype"] = "float32"
        super().__init__(**kwargs)
        _check_pooling(kind)
        self.kind = kind
        self.power: tf.Variable | None = None

    def build(self, input_shape: Any) -> None:
        """Creates the power of the generalised mean."""
        if self.kind == "gem":
            start = tf.keras.initializers.Constant(_GEM_START)
            self.power = self.add_weight(name="power", shape=(), initializer=start)
        super().build(input_shape)

    def call(self, inputs: tf.Tensor) -> tf.Tensor:
        """Returns the pooled features, float32 [B, F]."""
        return pool(inputs, self.kind) if self.power is None else pool(inputs, self.kind, self.power)

    def get_config(self) -> dict[str, Any]:
        """Returns the arguments of the layer."""
        return {**super().get_config(), "kind": self.kind}


def pool(features: tf.Tensor, kind: str, power: tf.Tensor | float = _GEM_START) -> tf.Tensor:
    """Pools a feature map over its positions.

    Args:
        features: [B, H, W, F], any float dtype; or [B, F], which stay as they are.
        kind: `'average'`, `'max'`, `'both'`, which is the sum of the two, `'gem'`, the generalised mean, or
            `'none'`, which keeps all positions: [B, H, W, F] becomes [B, H * W * F].
        power: power of the generalised mean, a float32 scalar; values below 1 count as 1.

    Returns:
        float32 [B, F], or [B, H * W * F].

    Raises:
        ValueError: if the kind is unknown, or it is `'none'` and H or W is not static.
    """
    _check_pooling(kind)
    features = tf.cast(features, tf.float32)
    if features.shape.rank == 2:
        return features
    if kind == "none":
        return _flatten(features)
    if kind == "gem":
        return generalized_mean(features, power)
    if kind == "average":
        return tf.reduce_mean(features, axis=[1, 2])
    if kind == "max":
        return tf.reduce_max(features, axis=[1, 2])
    return tf.reduce_mean(features, axis=[1, 2]) + tf.reduce_max(features, axis=[1, 2])


def generalized_mean(features: tf.Tensor, power: tf.Tensor | float) -> tf.Tensor:
    """Computes the generalised mean over positions, `(mean x^p)^(1/p)`, near the maximum for large p.

    Radenović, Tolias, Chum, "Fine-tuning CNN image retrieval with no human annotation", TPAMI 2018, eq. 3.

    Args:
        features: float32 [B, H, W, F]; values below 1e-6 count as 1e-6, as powers need positive numbers.
        power: p, a scalar; values below 1 count as 1.

    Returns:
        float32 [B, F]. Neither the result nor its gradient overflows, whatever the power.
    """
    features = tf.maximum(features, _SMALLEST_FEATURE)
    power = tf.maximum(tf.cast(power, tf.float32), 1.0)
    # The mean of powers relative to the largest feature, in (0, 1], neither overflows nor vanishes.
    largest = tf.stop_gradient(tf.reduce_max(features, axis=[1, 2], keepdims=True))
    means = tf.reduce_mean(tf.pow(features / largest, power), axis=[1, 2])
    return largest[:, 0, 0] * tf.pow(means, 1.0 / power)


def _flatten(features: tf.Tensor) -> tf.Tensor:
    if features.shape.rank == 2:
        return features
    if None in features.shape[1:]:
        raise ValueError(
            f"pooling is 'none', which needs images of a known size; found features {features.shape}"
        )
    return tf.reshape(features, [-1, features.shape[1:].num_elements()])


def _check_pooling(kind: str) -> None:
    if kind not in POOLINGS:
        raise ValueError(f"pooling is {kind!r}; expected one of {', '.join(POOLINGS)}")


@tf.keras.utils.register_keras_serializable("ccp_dml")
class LipschitzNormalization(tf.keras.layers.Layer):
    """Normalises vectors [..., D]; by default to `x / max(1, |x|)`.

    The default maps x to the nearest point of the unit ball: it is 1-Lipschitz and does not change vectors
    inside the ball.

    Attributes:
        kind: one of `ccp_dml.geometry.NORMALIZATIONS`.

    Example:
        >>> LipschitzNormalization()(tf.constant([[0.25, 0.5], [0.0, 5.0]])).numpy().tolist()
        [[0.25, 0.5], [0.0, 1.0]]
    """

    def __init__(self, kind: str = "lipschitz", **kwargs: Any) -> None:
        """Creates the layer.

        Args:
            kind: the normalisation, see `ccp_dml.geometry.normalize`.
            **kwargs: `name` of a Keras layer.

        Raises:
            ValueError: if the kind is unknown.
        """
        kwargs["dtype"] = "float32"
        super().__init__(**kwargs)
        check_normalization(kind)
        self.kind = kind

    def call(self, inputs: tf.Tensor) -> tf.Tensor:
        """Returns the normalised vectors, float32 of the shape of the input."""
        return normalize(inputs, self.kind)

    def compute_output_shape(self, input_shape: Any) -> Any:
        """Returns the shape of the input."""
        return input_shape

    def get_config(self) -> dict[str, Any]:
        """Returns the arguments of the layer."""
        return {**super().get_config(), "kind": self.kind}
