"""From an encoded image to the pixels that a model gets: float32 RGB, 0..255, [S, S, 3].

Training: a random window by area and aspect ratio, resized to the square, and a random flip. Test: the
shorter side is resized, then the centre cropped. Bilinear with half-pixel centres, without antialiasing.
What a backbone makes of 0..255 (mean, scale, channel order) is the model's first layer.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import tensorflow as tf

WINDOW_ATTEMPTS = 10


@dataclass(frozen=True)
class TrainPreprocessing:
    """Options of training images.

    Attributes:
        image_size: side S of the result.
        area_range: smallest and largest share of the image that a window covers.
        aspect_range: smallest and largest width / height of a window.
        flip: whether half of the images are mirrored.
    """

    image_size: int
    area_range: tuple[float, float] = (0.16, 1.0)
    aspect_range: tuple[float, float] = (3 / 4, 4 / 3)
    flip: bool = True

    def __post_init__(self) -> None:
        if self.image_size < 1:
            raise ValueError(f"image_size must be at least 1, found {self.image_size}")
        if not 0 < self.area_range[0] <= self.area_range[1] <= 1:
            raise ValueError(f"area_range must be ascending within (0, 1], found {self.area_range}")
        if not 0 < self.aspect_range[0] <= self.aspect_range[1]:
            raise ValueError(f"aspect_range must be ascending and positive, found {self.aspect_range}")


@dataclass(frozen=True)
class TestPreprocessing:
    """Options of test images.

    Attributes:
        image_size: side S of the result.
        shorter_side: length that the shorter side is resized to; what is missing to S is padded with zeros.
    """

    __test__ = False  # The name is not that of a test class.

    image_size: int
    shorter_side: int

    def __post_init__(self) -> None:
        if self.image_size < 1 or self.shorter_side < 1:
            raise ValueError(
                f"image_size and shorter_side must be at least 1, "
                f"found {self.image_size} and {self.shorter_side}"
            )


def decode_rgb(encoded: tf.Tensor) -> tf.Tensor:
    """Decodes a JPEG or PNG image (scalar string) to uint8 RGB [H, W, 3]."""
    return tf.cond(
        tf.io.is_jpeg(encoded),
        lambda: tf.io.decode_jpeg(encoded, channels=3, dct_method="INTEGER_ACCURATE"),
        lambda: tf.io.decode_png(encoded, channels=3),
    )


def train_image(encoded: tf.Tensor, config: TrainPreprocessing, seed: tf.Tensor) -> tf.Tensor:
    """Decodes and augments one image.

    Args:
        encoded: scalar string, JPEG or PNG. Of a JPEG only the window is decoded.
        config: options.
        seed: int32 [2]; the result is a function of the image and of it.

    Returns:
        float32 RGB [S, S, 3], 0..255.
    """
    draws = tf.random.stateless_uniform([WINDOW_ATTEMPTS * 4 + 1], seed)

    def from_jpeg() -> tf.Tensor:
        window = _window(tf.image.extract_jpeg_shape(encoded), config, draws)
        return tf.image.decode_and_crop_jpeg(encoded, window, channels=3, dct_method="INTEGER_ACCURATE")

    def from_png() -> tf.Tensor:
        image = tf.io.decode_png(encoded, channels=3)
        window = _window(tf.shape(image), config, draws)
        return tf.slice(image, tf.pad(window[:2], [[0, 1]]), tf.concat([window[2:], [3]], 0))

    image = _resize(
        tf.cond(tf.io.is_jpeg(encoded), from_jpeg, from_png), config.image_size, config.image_size
    )
    if config.flip:
        image = image[:, :: tf.where(draws[-1] < 0.5, -1, 1)]
    return tf.ensure_shape(image, [config.image_size, config.image_size, 3])


def _window(shape: tf.Tensor, config: TrainPreprocessing, draws: tf.Tensor) -> tf.Tensor:
    return crop_window(
        shape[0],
        shape[1],
        tf.reshape(draws[: WINDOW_ATTEMPTS * 4], [WINDOW_ATTEMPTS, 4]),
        area_range=config.area_range,
        aspect_range=config.aspect_range,
    )


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


def test_image(image: tf.Tensor, config: TestPreprocessing) -> tf.Tensor:
    """Resizes the shorter side and crops the centre.

    Args:
        image: scalar string (JPEG or PNG), or RGB pixels [H, W, 3] of any numeric type.
        config: options.

    Returns:
        float32 RGB [S, S, 3], in the units of the pixels (0..255 from an encoded image).
    """
    if image.dtype == tf.string:
        image = decode_rgb(image)
    image = resize_shorter_side(image, config.shorter_side)
    return central_crop_or_pad(image, config.image_size)


test_image.__test__ = False  # type: ignore[attr-defined]


def resize_shorter_side(image: tf.Tensor, shorter_side: int) -> tf.Tensor:
    """Resizes an image so that its shorter side has the given length.

    The new height and width are `trunc(height / ratio)`, `trunc(width / ratio)`, ratio = min(height, width) /
    shorter_side, computed in float32.

    Args:
        image: pixels [H, W, C], numeric.
        shorter_side: new length.

    Returns:
        float32 [H', W', C].
    """
    size = tf.shape(image)[:2]
    # Division by a constant becomes, in an optimised graph, a product with its reciprocal, which in float32
    # is not the same and may lose a pixel. Rounded from float64, both are the float32 quotient.
    ratio = tf.cast(tf.cast(tf.reduce_min(size), tf.float64) / shorter_side, tf.float32)
    new_size = tf.cast(tf.cast(size, tf.float32) / ratio, tf.int32)
    return _resize(image, new_size[0], new_size[1])


def central_crop_or_pad(image: tf.Tensor, image_size: int) -> tf.Tensor:
    """Crops the centre of an image, or pads it with zeros on all sides, to a square.

    Where the difference is odd, the lower and right sides lose one pixel more (or get one more).

    Args:
        image: [H, W, C].
        image_size: side S of the square.

    Returns:
        [S, S, C] of the same type.
    """
    size = tf.shape(image)[:2]
    begin = tf.maximum(size - image_size, 0) // 2
    kept = tf.minimum(size, image_size)
    image = image[begin[0] : begin[0] + kept[0], begin[1] : begin[1] + kept[1]]
    missing = image_size - kept
    padding = tf.stack([missing // 2, missing - missing // 2], axis=1)
    padded = tf.pad(image, tf.pad(padding, [[0, 1], [0, 0]]))
    return tf.ensure_shape(padded, [image_size, image_size, image.shape[-1]])


def _resize(image: tf.Tensor, height: tf.Tensor | int, width: tf.Tensor | int) -> tf.Tensor:
    size = tf.stack([height, width])
    return tf.raw_ops.ResizeBilinear(images=image[tf.newaxis], size=size, half_pixel_centers=True)[0]
