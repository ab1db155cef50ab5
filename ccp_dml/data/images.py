"""Decoding, resizing and cropping of images, and the preprocessing of images that are evaluated.

Pixels are float32 RGB in 0..255. A model scales them to the input of its backbone in its first layer.
Resizing is bilinear with half-pixel centers. With antialiasing, a pixel of a smaller image is the mean of all
pixels that it covers, weighted by a triangle; without it, of the four that are nearest to its center.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import tensorflow as tf

from ccp_dml.data.options import ImageOptions

MID_GRAY = 127.5
# An image is resized before it is cropped up to this ratio of its longer side to that of the crop.
_MOST_WASTE = 8

_PNG = b"\x89PNG\r\n\x1a\n"
_JPEG = b"\xff\xd8\xff"
_MARKER, _SCAN = 0xFF, 0xDA
# Markers of JPEG frames, which hold the size: C0 to CF except for tables and a reserved marker.
_FRAMES = frozenset(range(0xC0, 0xD0)) - {0xC4, 0xC8, 0xCC}


@dataclass(frozen=True)
class TestPreprocessing:
    """The resize and crop of images that are evaluated.

    Attributes:
        image_size: side S of the result in pixels.
        shorter_side: length to which the shorter side is resized; None to skip resizing.
        padding: value of pixels added around images that are smaller than S, 0..255.
        gray: replace the channels of each pixel by their mean.
        antialias: resize with antialiasing.
    """

    __test__ = False  # Not a test class, in spite of its name.

    image_size: int
    shorter_side: int | None
    padding: float = 0.0
    gray: bool = False
    antialias: bool = ImageOptions.antialias

    def __post_init__(self) -> None:
        if self.image_size < 1 or (self.shorter_side is not None and self.shorter_side < 1):
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
        float32 RGB [S, S, 3], in the range of the pixels (0..255 for an encoded image).
    """
    if image.dtype == tf.string:
        image = decode_rgb(image, box)
    elif box is not None:
        image = _crop(image, box)
    if config.shorter_side is None:
        image = tf.cast(image, tf.float32)
    else:
        size = _resized_size(image, config.shorter_side)
        kept = tf.minimum(size, config.image_size)
        window = _antialiased_window if config.antialias else _resized_window
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

    The new size is `trunc(height / ratio)`, `trunc(width / ratio)` with `ratio = min(height, width) /
    shorter_side`, computed in float32.

    Args:
        image: pixels [H, W, C] of any numeric type.
        shorter_side: length in pixels.
        antialias: resize with antialiasing.

    Returns:
        float32 [H', W', C].
    """
    size = _resized_size(image, shorter_side)
    return resize(image, size[0], size[1], antialias=antialias)


def _resized_size(image: tf.Tensor, shorter_side: int) -> tf.Tensor:
    """Returns the height and width after `resize_shorter_side`, int64 [2]."""
    size = tf.shape(image, tf.int64)[:2]
    # Optimized graphs replace the division by a constant by a product with its reciprocal, which differs in
    # float32 and may lose a pixel. Rounded from float64, both are the float32 quotient.
    ratio = tf.cast(tf.cast(tf.reduce_min(size), tf.float64) / shorter_side, tf.float32)
    return tf.cast(tf.cast(size, tf.float32) / ratio, tf.int64)


def resize(
    image: tf.Tensor, height: tf.Tensor | int, width: tf.Tensor | int, *, antialias: bool = False
) -> tf.Tensor:
    """Resizes pixels [H, W, C] of any numeric type bilinearly to float32 [height, width, C]."""
    size = tf.cast(tf.stack([height, width]), tf.int64)
    if antialias:
        return _antialiased_window(image, size, tf.zeros_like(size), size)
    size = tf.cast(size, tf.int32)
    return tf.raw_ops.ResizeBilinear(images=image[tf.newaxis], size=size, half_pixel_centers=True)[0]


def _antialiased_window(image: tf.Tensor, size: tf.Tensor, begin: tf.Tensor, kept: tf.Tensor) -> tf.Tensor:
    """Returns the part of `resize(image, *size, antialias=True)` at `begin` of the size `kept`, int64 [2]."""
    old = tf.shape(image, tf.int64)[:2]
    scale = tf.cast(size, tf.float64) / tf.cast(old, tf.float64)
    # The pixels that the window covers, and those within the reach of the filter around them.
    reach = tf.maximum(1 / scale, 1) + 1
    first = tf.cast(tf.floor(tf.cast(begin, tf.float64) / scale - reach), tf.int64)
    last = tf.cast(tf.math.ceil(tf.cast(begin + kept, tf.float64) / scale + reach), tf.int64)
    first, last = tf.maximum(first, 0), tf.minimum(last, old)
    shift = tf.cast(first, tf.float64) * scale - tf.cast(begin, tf.float64)
    return tf.raw_ops.ScaleAndTranslate(
        images=image[tf.newaxis, first[0] : last[0], first[1] : last[1]],
        size=tf.cast(kept, tf.int32),
        scale=tf.cast(scale, tf.float32),
        translation=tf.cast(shift, tf.float32),
        kernel_type="triangle",
        antialias=True,
    )[0]


def _resized_window(image: tf.Tensor, size: tf.Tensor, begin: tf.Tensor, kept: tf.Tensor) -> tf.Tensor:
    """Returns the part of `resize(image, *size)` that begins at `begin` and has the size `kept`, int64 [2].

    Resizing first is faster, unless the image is so long that most of the result would be cut off.
    """
    return either(
        tf.reduce_max(size) <= _MOST_WASTE * tf.reduce_max(kept),
        lambda image: tf.slice(
            resize(image, size[0], size[1]),
            tf.pad(begin, [[0, 1]]),
            tf.pad(kept, [[0, 1]], constant_values=-1),
        ),
        lambda image: _interpolated(image, size, begin, kept),
        image,
    )


def _interpolated(image: tf.Tensor, size: tf.Tensor, begin: tf.Tensor, kept: tf.Tensor) -> tf.Tensor:
    """Computes the pixels of a window with the formulas of `resize`."""
    (above, below, down), (left, right, across) = (
        _neighbours(tf.shape(image, tf.int64)[axis], size[axis], begin[axis], kept[axis]) for axis in (0, 1)
    )
    # Without the slice, all columns of the rows would be gathered.
    columns = image[:, left[0] : right[-1] + 1]
    rows = tf.gather(columns, tf.concat([above, below], 0))
    first, second = (tf.gather(rows, places - left[0], axis=1) for places in (left, right))
    upper, lower = tf.split(_between(first, second, across[:, tf.newaxis]), 2)
    return _between(upper, lower, down[:, tf.newaxis, tf.newaxis])


def _neighbours(
    old: tf.Tensor, new: tf.Tensor, begin: tf.Tensor, count: tf.Tensor
) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
    """Places `begin` to `begin + count - 1` of an axis that is resized from `old` to `new` pixels.

    Returns:
        The two pixels around each place, int64 [count], and the weight of the second, float32 [count].
    """
    scale = tf.cast(old, tf.float32) / tf.cast(new, tf.float32)
    place = (tf.cast(begin + tf.range(count), tf.float32) + 0.5) * scale - 0.5
    first, second = (tf.cast(rounded(place), tf.int64) for rounded in (tf.floor, tf.math.ceil))
    return tf.clip_by_value(first, 0, old - 1), tf.clip_by_value(second, 0, old - 1), place - tf.floor(place)


def _between(first: tf.Tensor, second: tf.Tensor, weight: tf.Tensor) -> tf.Tensor:
    first, second = tf.cast(first, tf.float32), tf.cast(second, tf.float32)
    return first + (second - first) * weight


def central_crop_or_pad(image: tf.Tensor, image_size: int, padding: float = 0) -> tf.Tensor:
    """Crops the center of an image, or pads the image on all sides, to a square.

    If the difference is odd, the lower and right sides lose or get one pixel more.

    Args:
        image: [H, W, C].
        image_size: side S of the square.
        padding: value of added pixels.

    Returns:
        [S, S, C] of the same type.
    """
    size = tf.shape(image)[:2]
    begin = tf.maximum(size - image_size, 0) // 2
    kept = tf.minimum(size, image_size)
    image = image[begin[0] : begin[0] + kept[0], begin[1] : begin[1] + kept[1]]
    missing = image_size - kept
    sides = tf.stack([missing // 2, missing - missing // 2], axis=1)
    padded = tf.pad(image, tf.pad(sides, [[0, 1], [0, 0]]), constant_values=padding)
    return tf.ensure_shape(padded, [image_size, image_size, image.shape[-1]])


def _crop(image: tf.Tensor, box: tf.Tensor) -> tf.Tensor:
    return tf.slice(image, tf.pad(box[:2], [[0, 1]]), tf.concat([box[2:], [3]], 0))


Branch = Callable[[tf.Tensor], tf.Tensor]


def either(condition: tf.Tensor, if_true: Branch, if_false: Branch, value: tf.Tensor) -> tf.Tensor:
    """Applies one of two functions to a tensor, without the overhead of `tf.cond` in `tf.data`.

    `tf.data` runs `tf.cond` as a function call, which takes about 50 microseconds per image. This function
    uses the operations that TensorFlow makes of `tf.cond` elsewhere. Gradients do not pass through it.

    Args:
        condition: scalar bool.
        if_true: function of the value; each of its operations that may be expensive must depend on the value.
        if_false: likewise, with a result of the same type.
        value: any tensor.

    Returns:
        The result of the chosen function.
    """
    if tf.executing_eagerly():
        return if_true(value) if condition else if_false(value)
    value_if_false, value_if_true = tf.raw_ops.Switch(data=value, pred=condition)
    return tf.raw_ops.Merge(inputs=[if_false(value_if_false), if_true(value_if_true)]).output
