"""Decoding of the images that clients send, inside the graph of a served model."""

from __future__ import annotations

import tensorflow as tf

_PNG_SIGNATURE = b"\x89PNG"
_WHITE = 255.0

_UPRIGHT = 1
# Markers of JPEG segments.
_APP0, _APP1, _APP15, _COMMENT = 0xE0, 0xE1, 0xEF, 0xFE
_EXIF_SIGNATURE = tuple(b"Exif\x00\x00")
_LITTLE_ENDIAN = tuple(b"II")
_ORIENTATION_TAG = 0x0112
# Bytes of an entry in a directory of the TIFF structure.
_ENTRY_SIZE = 12
# The EXIF segment precedes the image data and is at most 64 KiB; a few other segments may precede it.
_BYTES_TO_READ = 1 << 18
# Zeros behind the bytes, so that no read needs a check of its range.
_PADDING = 64


def decode_upright_rgb(encoded: tf.Tensor) -> tf.Tensor:
    """Decodes a JPEG, PNG or GIF (its first frame) of any size.

    Gray becomes RGB, CMYK is converted, transparent pixels are laid on white, and a JPEG is turned by its
    EXIF orientation. Upright RGB images have the same pixels as in the evaluation. BMP is refused, because
    TensorFlow takes its palette indices for gray values.

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
    return _make_upright(image, jpeg_orientation(encoded))


def _decode_png(encoded: tf.Tensor) -> tf.Tensor:
    # With four channels, an opaque image gets the alpha 255, and one formula serves all images.
    image = tf.io.decode_png(encoded, channels=4)
    color, alpha = tf.cast(image[..., :3], tf.float32), tf.cast(image[..., 3:], tf.float32) / 255.0
    return tf.cast(tf.round(color * alpha + _WHITE * (1.0 - alpha)), tf.uint8)


def _make_upright(image: tf.Tensor, orientation: tf.Tensor) -> tf.Tensor:
    """Turns and mirrors an image [H, W, C] by its orientation in 1..8; from 5 on, it becomes [W, H, C]."""
    # Orientations 5..8 are 1, 4, 2, 3 of the transposed image.
    image = tf.cond(orientation > 4, lambda: tf.transpose(image, [1, 0, 2]), lambda: image)
    flip_rows = _is_one_of(orientation, 3, 4, 7, 8)
    flip_columns = _is_one_of(orientation, 2, 3, 6, 7)
    image = tf.cond(flip_rows, lambda: tf.reverse(image, [0]), lambda: image)
    return tf.cond(flip_columns, lambda: tf.reverse(image, [1]), lambda: image)


def _is_one_of(value: tf.Tensor, *choices: int) -> tf.Tensor:
    return tf.reduce_any(tf.equal(value, tf.constant(choices)))


def jpeg_orientation(encoded: tf.Tensor) -> tf.Tensor:
    """Reads the EXIF orientation of a JPEG.

    Args:
        encoded: scalar string, the bytes of the file.

    Returns:
        Scalar int32 in 1..8; 1 (upright) if the file has no orientation or a malformed one.
    """
    head = tf.strings.substr(encoded, 0, _BYTES_TO_READ)
    content = tf.concat([tf.io.decode_raw(head, tf.uint8), tf.zeros([_PADDING], tf.uint8)], 0)
    content = tf.cast(content, tf.int32)
    segment = _exif_segment(content)
    tiff = segment + 4 + len(_EXIF_SIGNATURE)
    return tf.cond(segment > 0, lambda: _orientation_entry(content, tiff), lambda: _UPRIGHT)


def _exif_segment(content: tf.Tensor) -> tf.Tensor:
    """Position of the marker of the EXIF segment; 0 if there is none before the image data."""
    end = tf.size(content) - _PADDING

    def is_skipped(at: tf.Tensor) -> tf.Tensor:
        marker = content[at + 1]
        is_header = ((marker >= _APP0) & (marker <= _APP15)) | tf.equal(marker, _COMMENT)
        return tf.equal(content[at], 0xFF) & is_header & ~is_exif(at)

    def is_exif(at: tf.Tensor) -> tf.Tensor:
        signature = content[at + 4 : at + 4 + len(_EXIF_SIGNATURE)]
        return tf.equal(content[at + 1], _APP1) & tf.reduce_all(signature == tf.constant(_EXIF_SIGNATURE))

    def next_segment(at: tf.Tensor) -> tuple[tf.Tensor]:
        return (tf.minimum(at + 2 + tf.maximum(_number(content, at + 2, 2, False), 2), end),)

    (at,) = tf.while_loop(is_skipped, next_segment, (tf.constant(2),))
    return tf.where(is_exif(at), at, 0)


def _orientation_entry(content: tf.Tensor, tiff: tf.Tensor) -> tf.Tensor:
    """The value of the orientation tag in the first directory of a TIFF structure."""
    little_endian = tf.reduce_all(content[tiff : tiff + 2] == tf.constant(_LITTLE_ENDIAN))
    last = tf.size(content) - _PADDING
    directory = tf.minimum(tiff + tf.maximum(_number(content, tiff + 4, 4, little_endian), 0), last)
    count = _number(content, directory, 2, little_endian)
    count = tf.minimum(count, (last - directory) // _ENTRY_SIZE)
    starts = directory + 2 + _ENTRY_SIZE * tf.range(count)
    tags = _number(content, starts, 2, little_endian)
    values = _number(content, starts + 8, 2, little_endian)
    found = tf.boolean_mask(values, tf.equal(tags, _ORIENTATION_TAG) & (values >= 1) & (values <= 8))
    return tf.concat([found, [_UPRIGHT]], 0)[0]


def _number(content: tf.Tensor, at: tf.Tensor, length: int, little_endian: tf.Tensor | bool) -> tf.Tensor:
    """Unsigned numbers of `length` bytes at the given positions."""
    digits = tf.gather(content, at[..., tf.newaxis] + tf.range(length))
    scales = [1 << (8 * i) for i in range(length)]
    return tf.reduce_sum(digits * tf.where(little_endian, scales, scales[::-1]), axis=-1)
