"""Global pooling of a feature map."""

from __future__ import annotations

from typing import Any

import tensorflow as tf

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
