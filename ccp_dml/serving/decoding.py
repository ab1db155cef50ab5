"""Encoded images as clients send them, as the upright RGB that a person sees."""

from __future__ import annotations

import tensorflow as tf

from ccp_dml.serving.orientation import jpeg_orientation, make_upright

_PNG_SIGNATURE = b"\x89PNG"
_WHITE = 255.0


def decode_upright_rgb(encoded: tf.Tensor) -> tf.Tensor:
    """Decodes one JPEG, PNG or GIF (its first frame) of any size.

    Gray becomes RGB, CMYK is converted, transparency is laid on white, a JPEG is turned as its EXIF
    orientation says. Of an image that is RGB and upright already, the pixels are those that the evaluation
    decodes. BMP is refused: TensorFlow takes its palette indices for gray values.

    Args:
        encoded: scalar string, the bytes of a file.

    Returns:
        uint8 RGB [H, W, 3].

    Raises:
        tf.errors.InvalidArgumentError: when run, if the bytes are no such image.
    """
    is_png = tf.equal(tf.strings.substr(encoded, 0, len(_PNG_SIGNATURE)), _PNG_SIGNATURE)
    image = tf.case(
        [(tf.io.is_jpeg(encoded), lambda: _decode_jpeg(encoded)), (is_png, lambda: _decode_png(encoded))],
        default=lambda: tf.io.decode_gif(encoded)[0],
    )
    return tf.ensure_shape(image, [None, None, 3])


def _decode_jpeg(encoded: tf.Tensor) -> tf.Tensor:
    image = tf.io.decode_jpeg(encoded, channels=3, dct_method="INTEGER_ACCURATE")
    return make_upright(image, jpeg_orientation(encoded))


def _decode_png(encoded: tf.Tensor) -> tf.Tensor:
    """Four channels are asked for, so that an opaque image gets the alpha 255 and one formula serves all."""
    image = tf.io.decode_png(encoded, channels=4)
    color, alpha = tf.cast(image[..., :3], tf.float32), tf.cast(image[..., 3:], tf.float32) / 255.0
    return tf.cast(tf.round(color * alpha + _WHITE * (1.0 - alpha)), tf.uint8)
