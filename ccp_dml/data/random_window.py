"""Random windows of images, by area and aspect ratio."""

from __future__ import annotations

import math

import tensorflow as tf


def crop_windows(
    sizes: tf.Tensor,
    draws: tf.Tensor,
    *,
    area_range: tuple[float, float],
    aspect_range: tuple[float, float],
) -> tf.Tensor:
    """Random windows of images, one of each.

    Each attempt draws an area (uniform), an aspect ratio (its logarithm uniform) and, for the window of that
    area and ratio rounded to pixels, a position (uniform over those that fit). The first window that is not
    larger than the image is taken. If none is: the largest centred one whose aspect ratio is in the range.

    Args:
        sizes: int32 [B, 2], height and width of the images.
        draws: float32 [B, attempts, 4] uniform in [0, 1): area, aspect, top, left.
        area_range: smallest and largest share of the image's area.
        aspect_range: smallest and largest width / height.

    Returns:
        int32 [B, 4]: top, left, height, width of the windows, inside the images.
    """
    images = tf.cast(sizes, tf.float32)
    rows, columns = images[:, 0], images[:, 1]
    low, high = (math.log(limit) for limit in aspect_range)
    share = area_range[0] + draws[:, :, 0] * (area_range[1] - area_range[0])
    area = (rows * columns)[:, tf.newaxis] * share
    aspect = tf.exp(low + draws[:, :, 1] * (high - low))
    attempts = tf.maximum(tf.round(tf.sqrt(tf.stack([area / aspect, area * aspect], 2))), 1.0)
    fits = tf.reduce_all(attempts <= images[:, tf.newaxis], axis=2)
    chosen = tf.argmax(fits, axis=1)
    largest = tf.stack(
        [
            tf.minimum(rows, tf.maximum(tf.round(columns / aspect_range[0]), 1.0)),
            tf.minimum(columns, tf.maximum(tf.round(rows * aspect_range[1]), 1.0)),
        ],
        axis=1,
    )
    found = tf.reduce_any(fits, axis=1, keepdims=True)
    size = tf.where(found, tf.gather(attempts, chosen, batch_dims=1), largest)
    place = tf.gather(draws[:, :, 2:], chosen, batch_dims=1)
    # A draw next to 1 times a large float may round up to the bound itself.
    position = tf.where(found, tf.minimum(place * (images - size + 1), images - size), (images - size) / 2)
    return tf.cast(tf.concat([tf.floor(position), size], 1), tf.int32)
