"""Global pooling of a feature map."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import tensorflow as tf

from ccp_dml.geometry import NORMALIZATIONS, normalize

POOLINGS: tuple[str, ...] = ("average", "max", "both", "none", "gem")
GEM_START = 3.0

_SMALLEST_FEATURE = 1e-6


def pool(features: tf.Tensor, kind: str, power: tf.Tensor | float = GEM_START) -> tf.Tensor:
    """Pools a feature map over its positions.

    Args:
        features: [B, H, W, F], any float dtype; for `'none'` [B, F] too.
        kind: `'average'`, `'max'`, `'both'`, which is the sum of the two, `'gem'`, the generalised mean, or
            `'none'`, which keeps all positions: [B, H, W, F] becomes [B, H * W * F].
        power: of the generalised mean, scalar float32; read as 1 if it is below.

    Returns:
        float32 [B, F], or [B, H * W * F].

    Raises:
        ValueError: if there is no such kind, or features of unknown size are not to be pooled.
    """
    _check(kind)
    features = tf.cast(features, tf.float32)
    if kind == "none":
        return _flat(features)
    if kind == "gem":
        return generalized_mean(features, power)
    if kind == "average":
        return tf.reduce_mean(features, axis=[1, 2])
    if kind == "max":
        return tf.reduce_max(features, axis=[1, 2])
    return tf.reduce_mean(features, axis=[1, 2]) + tf.reduce_max(features, axis=[1, 2])


def generalized_mean(features: tf.Tensor, power: tf.Tensor | float) -> tf.Tensor:
    """The generalised mean over positions, `(mean x^p)^(1/p)`: from the mean (p = 1) towards the maximum.

    Source: Radenović, Tolias and Chum, Fine-tuning CNN Image Retrieval with No Human Annotation, TPAMI 2018,
    equation 3.

    Args:
        features: float32 [B, H, W, F]; what is below 1e-6 counts as 1e-6, as powers need positive numbers.
        power: p, scalar; read as 1 if it is below.

    Returns:
        float32 [B, F]. Neither it nor its gradient overflows, whatever the power.
    """
    features = tf.maximum(features, _SMALLEST_FEATURE)
    power = tf.maximum(tf.cast(power, tf.float32), 1.0)
    # The mean of powers relative to the largest feature, in (0, 1], neither overflows nor vanishes.
    largest = tf.stop_gradient(tf.reduce_max(features, axis=[1, 2], keepdims=True))
    means = tf.reduce_mean(tf.pow(features / largest, power), axis=[1, 2])
    return largest[:, 0, 0] * tf.pow(means, 1.0 / power)


def _flat(features: tf.Tensor) -> tf.Tensor:
    if features.shape.rank == 2:
        return features
    if None in features.shape[1:]:
        raise ValueError(
            f"pooling is 'none', which needs images of a known size; found features {features.shape}"
        )
    return tf.reshape(features, [-1, features.shape[1:].num_elements()])


def _check(kind: str) -> None:
    if kind not in POOLINGS:
        raise ValueError(f"pooling is {kind!r}; expected one of {', '.join(POOLINGS)}")


@tf.keras.utils.register_keras_serializable("ccp_dml")
class GlobalPooling(tf.keras.layers.Layer):
    """The layer of `pool`: feature maps [B, H, W, F] to float32 [B, F].

    Attributes:
        kind: one of `POOLINGS`.
        power: for `'gem'` the trainable power, a float32 scalar that starts at 3; else None.
    """

    def __init__(self, kind: str = "average", **kwargs: Any) -> None:
        """Creates the layer.

        Args:
            kind: see `pool`.
            **kwargs: `name` of a Keras layer.

        Raises:
            ValueError: if there is no such kind.
        """
        kwargs["dtype"] = "float32"
        super().__init__(**kwargs)
        _check(kind)
        self.kind = kind
        self.power: tf.Variable | None = None

    def build(self, input_shape: Any) -> None:
        """Creates the power of the generalised mean."""
        if self.kind == "gem":
            start = tf.keras.initializers.Constant(GEM_START)
            self.power = self.add_weight(name="power", shape=(), initializer=start)
        super().build(input_shape)

    def call(self, inputs: tf.Tensor) -> tf.Tensor:
        """Returns the pooled features, float32 [B, F]."""
        return pool(inputs, self.kind) if self.power is None else pool(inputs, self.kind, self.power)

    def get_config(self) -> dict[str, Any]:
        """Arguments that create this layer again."""
        return {**super().get_config(), "kind": self.kind}


@tf.keras.utils.register_keras_serializable("ccp_dml")
class PixelScaling(tf.keras.layers.Layer):
    """Computes `scale * (images / 255 - mean) / std` per channel, then reverses the channels if asked.

    Attributes:
        mean: three numbers, in units of the full pixel range (0..1), in RGB order.
        std: three positive numbers, in the same units and order.
        scale: factor on the result.
        reverse_channels: whether RGB becomes BGR.
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
            reverse_channels: whether to turn RGB into BGR.
            **kwargs: `name` of a Keras layer.

        Raises:
            ValueError: if mean or std do not have three elements or an element of std is not positive.
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
                f"Pixel mean {self.mean} and std {self.std} need three elements each, R, G and B."
            )
        if min(self.std) <= 0:
            raise ValueError(f"Pixel std is {self.std}; positive numbers are expected.")

    def call(self, inputs: tf.Tensor) -> tf.Tensor:
        """Returns the scaled images.

        Args:
            inputs: float RGB images [..., 3] in 0..255.

        Returns:
            float32 images of the same shape.
        """
        # In units of pixels the result is exact where the constants are, as in (x - 127) / 128.
        offset = np.asarray(self.mean, np.float64) * 255.0
        factor = self.scale / (np.asarray(self.std, np.float64) * 255.0)
        scaled = (inputs - offset.astype(np.float32)) * factor.astype(np.float32)
        return tf.reverse(scaled, axis=[-1]) if self.reverse_channels else scaled

    def compute_output_shape(self, input_shape: Any) -> Any:
        """Returns the shape of the input."""
        return input_shape

    def get_config(self) -> dict[str, Any]:
        """Arguments that create this layer again."""
        return {
            **super().get_config(),
            "mean": list(self.mean),
            "std": list(self.std),
            "scale": self.scale,
            "reverse_channels": self.reverse_channels,
        }


@tf.keras.utils.register_keras_serializable("ccp_dml")
class LipschitzNormalization(tf.keras.layers.Layer):
    """Normalises vectors [..., D]; by default to `x / max(1, |x|)`.

    The default maps x to the nearest point of the unit ball, hence it is 1-Lipschitz and leaves vectors
    inside the ball as they are. Input is cast to float32, output is float32, under every precision policy.

    Attributes:
        kind: one of `ccp_dml.geometry.NORMALIZATIONS`.
    """

    def __init__(self, kind: str = "lipschitz", **kwargs: Any) -> None:
        """Creates the layer.

        Args:
            kind: which normalisation, see `ccp_dml.geometry.normalize`.
            **kwargs: `name` of a Keras layer.

        Raises:
            ValueError: if there is no such kind.
        """
        kwargs["dtype"] = "float32"
        super().__init__(**kwargs)
        if kind not in NORMALIZATIONS:
            raise ValueError(f"Normalisation {kind!r} is unknown; one of {NORMALIZATIONS} is expected.")
        self.kind = kind

    def call(self, inputs: tf.Tensor) -> tf.Tensor:
        """Returns the normalised vectors, float32 of the input's shape."""
        return normalize(inputs, self.kind)

    def compute_output_shape(self, input_shape: Any) -> Any:
        """Returns the shape of the input."""
        return input_shape

    def get_config(self) -> dict[str, Any]:
        """Arguments that create this layer again."""
        return {**super().get_config(), "kind": self.kind}
