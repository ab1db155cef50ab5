"""From RGB pixels in 0..255 to the range and the channel order that a backbone was trained with."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import tensorflow as tf


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
