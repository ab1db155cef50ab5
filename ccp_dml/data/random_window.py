"""Random windows of images, by area and aspect ratio."""

from __future__ import annotations

import math

import tensorflow as tf


def crop_window(
    height: tf.Tensor,
    width: tf.Tensor,
    draws: tf.Tensor,
    *,
    area_range: tuple[float, float],
    aspect_range: tuple[float, float],
) -> tf.Tensor:
    """Random window of an image.

    Each attempt draws an area (uniform), an aspect ratio (its logarithm uniform) and, for the window of that
    area and ratio rounded to pixels, a position (uniform over those that fit). The first window that is not
    larger than the image is taken. If none is: the largest centred one whose aspect ratio is in the range.

    Args:
        height: scalar int32, of the image.
        width: scalar int32.
        draws: float32 [attempts, 4] uniform in [0, 1): area, aspect, top, left.
        area_range: smallest and largest share of the image's area.
        aspect_range: smallest and largest width / height.

    Returns:
        int32 [4]: top, left, height, width of the window, inside the image.
    """
    rows, columns = tf.cast(height, tf.float32), tf.cast(width, tf.float32)
    low, high = (math.log(limit) for limit in aspect_range)
    area = rows * columns * (area_range[0] + draws[:, 0] * (area_range[1] - area_range[0]))
    aspect = tf.exp(low + draws[:, 1] * (high - low))
    sizes = tf.maximum(tf.round(tf.sqrt(tf.stack([area / aspect, area * aspect], 1))), 1.0)
    image = tf.stack([rows, columns])
    fits = tf.reduce_all(sizes <= image, axis=1)
    chosen = tf.argmax(fits)
    largest = tf.stack(
        [
            tf.minimum(rows, tf.maximum(tf.round(columns / aspect_range[0]), 1.0)),
            tf.minimum(columns, tf.maximum(tf.round(rows * aspect_range[1]), 1.0)),
        ]
    )
    found = tf.reduce_any(fits)
    size = tf.where(found, sizes[chosen], largest)
    # A draw next to 1 times a large float may round up to the bound itself.
    position = tf.where(
        found, tf.minimum(draws[chosen, 2:] * (image - size + 1), image - size), (image - size) / 2
    )
    return tf.cast(tf.concat([tf.floor(position), size], 0), tf.int32)
