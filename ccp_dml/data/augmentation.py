"""Training images: what is drawn at random for a batch, and each image made by that.

A random window by area and aspect ratio, resized to the square, and a random flip; or, for small images that
are not to be resized, a random square out of the padded image, and a random flip.
"""

from __future__ import annotations

import tensorflow as tf

from ccp_dml.data.branches import either
from ccp_dml.data.preprocessing import (
    Augmentation,
    PadAndCrop,
    TrainPreprocessing,
    central_crop_or_pad,
    decode_rgb,
    resize,
)
from ccp_dml.data.random_window import crop_windows

WINDOW_ATTEMPTS = 10


def num_draws(config: Augmentation) -> int:
    """How many random numbers an image takes."""
    return WINDOW_ATTEMPTS * 4 + 1 if isinstance(config, TrainPreprocessing) else 3


def choose(config: Augmentation, boxes: tf.Tensor, draws: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
    """Chooses windows of the images of a batch, and which are mirrored.

    Args:
        config: options.
        boxes: int32 [B, 4], top, left, height and width of the part of each encoded image that is the image.
        draws: float32 [B, num_draws], uniform in [0, 1).

    Returns:
        int32 [B, 4], top, left, height and width, in the encoded image or, for `PadAndCrop`, in the padded
        one; and bool [B].
    """
    if isinstance(config, PadAndCrop):
        places = config.padded_size - config.image_size + 1
        # A draw next to 1 times a large float may round up to the bound itself.
        begin = tf.minimum(tf.cast(draws[:, :2] * places, tf.int32), places - 1)
        windows = tf.pad(begin, [[0, 0], [0, 2]], constant_values=config.image_size)
    else:
        windows = crop_windows(
            boxes[:, 2:],
            tf.reshape(draws[:, :-1], [-1, WINDOW_ATTEMPTS, 4]),
            area_range=config.area_range,
            aspect_range=config.aspect_range,
        )
        windows += tf.pad(boxes[:, :2], [[0, 0], [0, 2]])
    return windows, (draws[:, -1] < 0.5) & config.flip


def train_image(
    encoded: tf.Tensor,
    config: Augmentation,
    window: tf.Tensor,
    mirrored: tf.Tensor,
    box: tf.Tensor | None = None,
) -> tf.Tensor:
    """Decodes and augments one image; of a JPEG, where it is resized, only the window is decoded.

    Args:
        encoded: scalar string, JPEG or PNG.
        config: options.
        window: int32 [4], as `choose` gives it.
        mirrored: scalar bool.
        box: int32 [4], what the window was chosen of; None: the whole image.

    Returns:
        float32 RGB [S, S, 3], 0..255.
    """
    side = config.image_size
    if isinstance(config, PadAndCrop):
        whole = tf.cast(decode_rgb(encoded, box), tf.float32)
        padded = central_crop_or_pad(whole, config.padded_size, config.padding)
        image = padded[window[0] : window[0] + side, window[1] : window[1] + side]
    else:
        image = resize(decode_rgb(encoded, window), side, side)
    if config.flip:
        # A slice with a negative stride takes as long as decoding the image.
        image = either(mirrored, lambda image: tf.reverse(image, [1]), lambda image: image, image)
    return tf.ensure_shape(image, [side, side, 3])
