"""Global pooling of a feature map."""

from __future__ import annotations

from typing import Any

import tensorflow as tf

POOLINGS: tuple[str, ...] = ("average", "max", "both")


def pool(features: tf.Tensor, kind: str) -> tf.Tensor:
    """Pools a feature map over its positions.

    Args:
        features: [B, H, W, F], any float dtype.
        kind: `'average'`, `'max'`, or `'both'`, which is the sum of the two.

    Returns:
        float32 [B, F].

    Raises:
        ValueError: if there is no such kind.
    """
    _check(kind)
    features = tf.cast(features, tf.float32)
    if kind == "average":
        return tf.reduce_mean(features, axis=[1, 2])
    if kind == "max":
        return tf.reduce_max(features, axis=[1, 2])
    return tf.reduce_mean(features, axis=[1, 2]) + tf.reduce_max(features, axis=[1, 2])


def _check(kind: str) -> None:
    if kind not in POOLINGS:
        raise ValueError(f"pooling is {kind!r}; expected one of {', '.join(POOLINGS)}")


@tf.keras.utils.register_keras_serializable("ccp_dml")
class GlobalPooling(tf.keras.layers.Layer):
    """The layer of `pool`: feature maps [B, H, W, F] to float32 [B, F].

    Attributes:
        kind: one of `POOLINGS`.
    """

    def __init__(self, kind: str = "average", **kwargs: Any) -> None:
        """Creates the layer.

        Args:
            kind: `'average'`, `'max'` or `'both'`.
            **kwargs: `name` of a Keras layer.

        Raises:
            ValueError: if there is no such kind.
        """
        kwargs["dtype"] = "float32"
        super().__init__(**kwargs)
        _check(kind)
        self.kind = kind

    def call(self, inputs: tf.Tensor) -> tf.Tensor:
        """Returns the pooled features, float32 [B, F]."""
        return pool(inputs, self.kind)

    def get_config(self) -> dict[str, Any]:
        """Arguments that create this layer again."""
        return {**super().get_config(), "kind": self.kind}
