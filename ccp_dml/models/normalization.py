"""The normalisation of embeddings as a Keras layer."""

from __future__ import annotations

from typing import Any

import tensorflow as tf

from ccp_dml.geometry.normalization import NORMALIZATIONS, normalize


@tf.keras.utils.register_keras_serializable("ccp_dml")
class LipschitzNormalization(tf.keras.layers.Layer):
    """Normalises vectors [..., D]; by default to `x / max(1, |x|)`.

    The default maps x to the nearest point of the unit ball, hence it is 1-Lipschitz and leaves vectors
    inside the ball as they are. Input is cast to float32, output is float32, under every precision policy.

    Attributes:
        kind: one of `ccp_dml.geometry.normalization.NORMALIZATIONS`.
    """

    def __init__(self, kind: str = "lipschitz", **kwargs: Any) -> None:
        """Creates the layer.

        Args:
            kind: which normalisation, see `ccp_dml.geometry.normalization.normalize`.
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
