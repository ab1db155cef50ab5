"""Test-time crops: a model that embeds an image as the mean over the image and some of its crops.

The boxes of the crops are the same for all images and in all runs: scores do not depend on a random draw.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import tensorflow as tf

_AREA = (0.16, 1.0)
_ASPECT = (0.75, 4 / 3)
_SEED = 0


def with_test_crops(model: tf.keras.Model, count: int) -> tf.keras.Model:
    """Makes a model that averages the raw embeddings of an image and of its crops.

    Args:
        model: a model from float32 images [B, S, S, 3] to raw embeddings [B, D].
        count: number of crops N; for 0 the model itself is returned.

    Returns:
        A model with the same inputs, outputs and weights. It costs N + 1 times as much.

    Raises:
        ValueError: if the number is negative, or the model's image size is not known.
    """
    if count < 0:
        raise ValueError(f"count of test crops is {count}; expected at least 0")
    if count == 0:
        return model
    if None in model.input_shape[1:]:
        raise ValueError(f"input_shape is {model.input_shape}; test crops need images of a known size")
    images = tf.keras.Input(model.input_shape[1:], name="images")
    embeddings = model(AuxiliaryCrops(count, name="auxiliary_crops")(images))
    mean = MeanOfCrops(count, name="mean_of_crops")(embeddings)
    return tf.keras.Model(images, mean, name=f"{model.name}_with_crops")


def crop_boxes(count: int) -> npt.NDArray[np.float32]:
    """Returns the boxes of the crops, always the same; fewer boxes are the first ones of more.

    Area and aspect ratio have the distribution of training crops, the position is uniform. About half of the
    boxes are mirrored: their right border is left of the left one.

    Args:
        count: number of boxes N.

    Returns:
        float32 [N, 4]: top, left, bottom, right in units of the side.
    """
    generator = np.random.default_rng(_SEED)
    boxes: list[tuple[float, float, float, float]] = []
    while len(boxes) < count:
        area, aspect, *place, mirror = generator.uniform(size=5)
        area = _AREA[0] + area * (_AREA[1] - _AREA[0])
        aspect = _ASPECT[0] + aspect * (_ASPECT[1] - _ASPECT[0])
        height, width = np.sqrt(area / aspect), np.sqrt(area * aspect)
        if max(height, width) > 1:
            continue
        top, left = place[0] * (1 - height), place[1] * (1 - width)
        sides = (left, left + width) if mirror < 0.5 else (left + width, left)
        boxes.append((top, sides[0], top + height, sides[1]))
    return np.array(boxes, np.float32).reshape(-1, 4)


class _CropsLayer(tf.keras.layers.Layer):
    """A layer for images and N crops of each; in float32 under every precision policy.

    Attributes:
        count: N, at least 1.
    """

    def __init__(self, count: int, **kwargs: Any) -> None:
        """Creates the layer.

        Args:
            count: number of crops.
            **kwargs: `name` of a Keras layer.
        """
        kwargs["dtype"] = "float32"
        super().__init__(**kwargs)
        self.count = count

    def get_config(self) -> dict[str, Any]:
        """Returns the arguments of the layer."""
        return {**super().get_config(), "count": self.count}


@tf.keras.utils.register_keras_serializable("ccp_dml")
class AuxiliaryCrops(_CropsLayer):
    """Appends N crops of each image to a batch: [B, S, S, 3] to [(N + 1) * B, S, S, 3]."""

    def call(self, inputs: tf.Tensor) -> tf.Tensor:
        """Returns the images, then the first crop of each, then the second, and so on; resized bilinearly."""
        batch = tf.shape(inputs)[0]
        boxes = tf.repeat(tf.constant(crop_boxes(self.count)), batch, axis=0)
        crops = tf.image.crop_and_resize(
            inputs, boxes, tf.tile(tf.range(batch), [self.count]), inputs.shape[1:3]
        )
        return tf.concat([inputs, crops], axis=0)


@tf.keras.utils.register_keras_serializable("ccp_dml")
class MeanOfCrops(_CropsLayer):
    """Averages the embeddings of each image and its crops: [(N + 1) * B, D] to [B, D]."""

    def call(self, inputs: tf.Tensor) -> tf.Tensor:
        """Returns the means."""
        return tf.reduce_mean(tf.reshape(inputs, [self.count + 1, -1, inputs.shape[-1]]), axis=0)
