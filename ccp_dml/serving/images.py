"""Decoding of the images that clients send, inside the graph of a served model."""

from __future__ import annotations

import tensorflow as tf

from ccp_dml.serving.content import Content
from ccp_dml.serving.gif import first_frame, on_screen
from ccp_dml.serving.metadata import jpeg_metadata, png_metadata

# A larger image is refused by its header, before it is decoded.
MAX_PIXELS = 2**26

_PNG_SIGNATURE = b"\x89PNG\r\n\x1a\n"
_GIF_SIGNATURES = (b"GIF87a", b"GIF89a")
_WHITE = 255
_GRAY, _WITH_ALPHA = 0, 4  # Colour types of PNG: gray alone, and a bit for an alpha channel.
# Adobe's segment of a JPEG, by which decoders know that CMYK is inverted.
_ADOBE = b"\xff\xee\x00\x0eAdobe\x00\x64\x00\x00\x00\x00\x00"


def decode_upright_rgb(encoded: tf.Tensor) -> tf.Tensor:
    """Decodes a JPEG, PNG or GIF (its first frame) to the pixels that preparation makes of it.

    Gray becomes RGB, CMYK is converted, 16 bits become 8, transparent pixels are laid on white, and the image
    is turned by its orientation. The pixels are those of training and evaluation, except where preparation
    makes a copy of quality 95, of some JPEGs and of large other images: then they are those before the copy.
    BMP is refused, because TensorFlow takes its palette indices for gray values.

    Args:
        encoded: scalar string, the bytes of a file.

    Returns:
        uint8 RGB [H, W, 3].

    Raises:
        tf.errors.InvalidArgumentError: when run, if the bytes are no such image, or if it has more than
            `MAX_PIXELS` pixels.
    """
    is_png = tf.equal(tf.strings.substr(encoded, 0, len(_PNG_SIGNATURE)), _PNG_SIGNATURE)
    image = tf.case(
        [(tf.io.is_jpeg(encoded), lambda: _decode_jpeg(encoded)), (is_png, lambda: _decode_png(encoded))],
        default=lambda: _decode_gif(encoded),
    )
    return tf.ensure_shape(image, [None, None, 3])


def _decode_jpeg(encoded: tf.Tensor) -> tf.Tensor:
    height, width, channels = tf.unstack(tf.io.extract_jpeg_shape(encoded, tf.int64))
    orientation, is_marked = jpeg_metadata(encoded)
    # Without the mark, preparation takes CMYK to be inverted and TensorFlow does not.
    marked = tf.strings.join([tf.strings.substr(encoded, 0, 2), _ADOBE, tf.strings.substr(encoded, 2, -1)])
    encoded = tf.where(tf.equal(channels, 4) & ~is_marked, marked, encoded)
    encoded = _if_small(encoded, height, width)
    return _upright(tf.io.decode_jpeg(encoded, channels=3, dct_method="INTEGER_ACCURATE"), orientation)


def _decode_png(encoded: tf.Tensor) -> tf.Tensor:
    file = Content(encoded)
    bits, color_type = file.byte(24), file.byte(25)
    orientation, is_transparent = png_metadata(encoded)
    is_transparent |= tf.not_equal(color_type & _WITH_ALPHA, 0)
    encoded = _if_small(encoded, file.number(20, 4), file.number(16, 4))

    def of_8_bits() -> tf.Tensor:
        # TensorFlow gives images of fewer than 8 bits a wrong alpha channel, unless they have one.
        return tf.cond(
            is_transparent,
            lambda: _on_white(tf.io.decode_png(encoded, channels=4)),
            lambda: tf.io.decode_png(encoded, channels=3),
        )

    def of_16_bits() -> tf.Tensor:
        """As in preparation, gray values are rounded; those of other images are cut to the upper 8 bits."""
        gray_alpha = tf.io.decode_png(encoded, channels=4, dtype=tf.uint16)[..., 2:]
        gray_alpha = tf.cast((tf.cast(gray_alpha, tf.int32) + 128) // 257, tf.uint8)
        return _on_white(tf.gather(gray_alpha, [0, 0, 0, 1], axis=-1))

    is_gray_16 = tf.equal(bits, 16) & tf.equal(color_type, _GRAY)
    return _upright(tf.cond(is_gray_16, of_16_bits, of_8_bits), orientation)


def _decode_gif(encoded: tf.Tensor) -> tf.Tensor:
    is_gif = tf.reduce_any(tf.equal(tf.strings.substr(encoded, 0, 6), _GIF_SIGNATURES))
    with tf.control_dependencies([tf.debugging.Assert(is_gif, ["neither a JPEG nor a PNG nor a GIF image"])]):
        frame = first_frame(tf.identity(encoded))
    only = _if_small(frame.encoded, frame.size[0], frame.size[1])
    return on_screen(tf.io.decode_gif(only)[0], frame)


def _if_small(encoded: tf.Tensor, height: tf.Tensor, width: tf.Tensor) -> tf.Tensor:
    """Returns the bytes of an image; an error if it has too many pixels."""
    message = [f"image with more than {MAX_PIXELS} pixels; height and width are", height, width]
    with tf.control_dependencies([tf.debugging.Assert(height * width <= MAX_PIXELS, message)]):
        return tf.identity(encoded)


def _on_white(image: tf.Tensor) -> tf.Tensor:
    """Lays uint8 [H, W, 4] on white, rounded; it is computed in 16 bits to save memory."""
    color, alpha = tf.cast(image[..., :3], tf.uint16), tf.cast(image[..., 3:], tf.uint16)
    total = color * alpha + _WHITE * (_WHITE - alpha) + 128
    # The total divided by 255, rounded.
    return tf.cast(tf.bitwise.right_shift(total + tf.bitwise.right_shift(total, 8), 8), tf.uint8)


def _upright(image: tf.Tensor, orientation: tf.Tensor) -> tf.Tensor:
    """Turns and mirrors an image [H, W, C] by its orientation; from 5 to 8, it becomes [W, H, C]."""

    def is_in(*orientations: int) -> tf.Tensor:
        return tf.reduce_any(tf.equal(orientation, tf.constant(orientations, orientation.dtype)))

    # Orientations 5..8 are 1, 4, 2, 3 of the transposed image.
    image = tf.cond(is_in(5, 6, 7, 8), lambda: tf.transpose(image, [1, 0, 2]), lambda: image)
    image = tf.cond(is_in(3, 4, 7, 8), lambda: tf.reverse(image, [0]), lambda: image)
    return tf.cond(is_in(2, 3, 6, 7), lambda: tf.reverse(image, [1]), lambda: image)
