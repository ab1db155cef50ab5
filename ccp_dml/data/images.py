"""Decoding of images, and the preprocessing of images that are evaluated.

Pixels are float32 RGB in 0..255. A model scales them to the input of its backbone in its first layer.
"""

from __future__ import annotations

from dataclasses import dataclass

import tensorflow as tf

from ccp_dml.data.options import ImageOptions
from ccp_dml.data.resizing import (
    antialiased_window,
    central_crop_or_pad,
    either,
    resize,
    resized_size,
    resized_window,
)
from ccp_dml.kinds import ImageSize, height_and_width

MID_GRAY = 127.5

_PNG = b"\x89PNG\r\n\x1a\n"
_JPEG = b"\xff\xd8\xff"
_MARKER, _SCAN = 0xFF, 0xDA
# Markers of JPEG frames, which hold the size: C0 to CF except for tables and a reserved marker.
_FRAMES = frozenset(range(0xC0, 0xD0)) - {0xC4, 0xC8, 0xCC}


@dataclass(frozen=True)
class TestPreprocessing:
    """The resize and crop of images that are evaluated.

    Attributes:
        image_size: side of the result in pixels, or height and width.
        shorter_side: length to which the shorter side is resized; None to skip resizing.
        padding: value of pixels added around images that are smaller than the result, 0..255.
        gray: replace the channels of each pixel by their mean.
        antialias: resize with antialiasing.
    """

    __test__ = False  # Not a test class, in spite of its name.

    image_size: ImageSize
    shorter_side: int | None
    padding: float = 0.0
    gray: bool = False
    antialias: bool = ImageOptions.antialias

    def __post_init__(self) -> None:
        if min(height_and_width(self.image_size)) < 1 or (
            self.shorter_side is not None and self.shorter_side < 1
        ):
            raise ValueError(
                f"image_size and shorter_side must be at least 1, "
                f"found {self.image_size} and {self.shorter_side}"
            )


def test_preprocessing(options: ImageOptions) -> TestPreprocessing:
    """Returns the preprocessing of evaluated images for complete options."""
    assert options.image_size is not None
    return TestPreprocessing(
        options.image_size,
        options.test_shorter_side,
        padding=MID_GRAY if options.preprocessing == "cifar" else 0.0,
        gray=options.preprocessing == "mnist",
        antialias=options.antialias,
    )


def test_image(image: tf.Tensor, config: TestPreprocessing, box: tf.Tensor | None = None) -> tf.Tensor:
    """Resizes the shorter side of an image and crops or pads its center.

    The memory for the result does not grow with the aspect ratio of the image.

    Args:
        image: encoded JPEG or PNG image, scalar string; or RGB pixels [H, W, 3] of any numeric type.
        config: the preprocessing.
        box: int32 [4], top, left, height and width to crop the image to first; None for the full image.

    Returns:
        float32 RGB [*image_size, 3], in the range of the pixels (0..255 for an encoded image).
    """
    if image.dtype == tf.string:
        image = decode_rgb(image, box)
    elif box is not None:
        image = _crop(image, box)
    if config.shorter_side is not None:
        size = resized_size(image, config.shorter_side)
        kept = tf.minimum(size, height_and_width(config.image_size))
        window = antialiased_window if config.antialias else resized_window
        image = window(image, size, (size - kept) // 2, kept)
    image = central_crop_or_pad(image, config.image_size, config.padding)
    if config.gray:
        image = tf.repeat(tf.reduce_mean(image, axis=-1, keepdims=True), 3, axis=-1)
    return image


test_image.__test__ = test_preprocessing.__test__ = False  # type: ignore[attr-defined]


def image_size(encoded: bytes) -> tuple[int, int]:
    """Reads the height and width in pixels from the header of a JPEG or PNG image.

    Raises:
        ValueError: if the format is another one, or the header is damaged.
    """
    if encoded.startswith(_PNG):
        if len(encoded) < 24:
            raise ValueError("the header of the PNG image is damaged")
        return int.from_bytes(encoded[20:24], "big"), int.from_bytes(encoded[16:20], "big")
    if not encoded.startswith(_JPEG):
        raise ValueError("neither a JPEG nor a PNG image")
    place = 2
    while 0 <= place <= len(encoded) - 9:
        marker = encoded[place + 1]
        if encoded[place] != _MARKER or marker in (0, _MARKER):
            # A fill byte, or a stray one. Decoders look for the next marker, too.
            place = encoded.find(b"\xff", place + 1)
        elif marker in _FRAMES:
            height, width = encoded[place + 5 : place + 7], encoded[place + 7 : place + 9]
            return int.from_bytes(height, "big"), int.from_bytes(width, "big")
        elif marker == _SCAN:
            break
        else:
            place += 2 + int.from_bytes(encoded[place + 2 : place + 4], "big")
    raise ValueError("the header of the JPEG image is damaged")


def decode_rgb(encoded: tf.Tensor, box: tf.Tensor | None = None) -> tf.Tensor:
    """Decodes a JPEG or PNG image.

    Args:
        encoded: scalar string.
        box: int32 [4], top, left, height and width to crop to; a JPEG is decoded only there. None for the
            full image.

    Returns:
        uint8 RGB [H, W, 3].
    """
    if box is None:
        # In spite of its name, the operation decodes PNG as well.
        return tf.io.decode_jpeg(encoded, channels=3, dct_method="INTEGER_ACCURATE")
    return either(
        tf.io.is_jpeg(encoded),
        lambda jpeg: tf.image.decode_and_crop_jpeg(jpeg, box, channels=3, dct_method="INTEGER_ACCURATE"),
        lambda png: _crop(tf.io.decode_png(png, channels=3), box),
        encoded,
    )


def resize_shorter_side(image: tf.Tensor, shorter_side: int, *, antialias: bool = False) -> tf.Tensor:
    """Resizes an image so that its shorter side has the given length.

    The new size is that of `resized_size`.

    Args:
        image: pixels [H, W, C] of any numeric type.
        shorter_side: length in pixels.
        antialias: resize with antialiasing.

    Returns:
        float32 [H', W', C].
    """
    size = resized_size(image, shorter_side)
    return resize(image, size[0], size[1], antialias=antialias)


def _crop(image: tf.Tensor, box: tf.Tensor) -> tf.Tensor:
    return tf.slice(image, tf.pad(box[:2], [[0, 1]]), tf.concat([box[2:], [3]], 0))
