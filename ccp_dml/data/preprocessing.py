"""From an encoded image to the pixels that a model gets: float32 RGB, 0..255, [S, S, 3].

Training: a random window by area and aspect ratio, resized to the square, and a random flip; or, for small
images that are not to be resized, a random square out of the padded image, and a random flip. Test: the
shorter side is resized, unless images are not to be, then the centre cropped. Resizing is bilinear with
half-pixel centres, without antialiasing. What a backbone makes of 0..255 (mean, scale, channel order) is the
model's first layer.
"""

from __future__ import annotations

from dataclasses import dataclass

import tensorflow as tf

from ccp_dml.data.random_window import crop_window

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
class PadAndCrop:
    """Options of training images that are shifted and mirrored, never resized.

    Attributes:
        image_size: side S of the result.
        padded_size: side, at least S, of the square out of which the result is cut at random; the image is in
            its middle, cropped where it is larger.
        padding: value of all channels around the image, 0..255.
        flip: whether half of the images are mirrored.
    """

    image_size: int
    padded_size: int
    padding: float = 0.0
    flip: bool = True

    def __post_init__(self) -> None:
        if not 1 <= self.image_size <= self.padded_size:
            raise ValueError(
                f"image_size must be between 1 and padded_size, "
                f"found {self.image_size} and {self.padded_size}"
            )


@dataclass(frozen=True)
class TestPreprocessing:
    """Options of test images.

    Attributes:
        image_size: side S of the result.
        shorter_side: length that the shorter side is resized to; None: images are not resized.
        padding: value of all channels of what is missing to S, 0..255.
        gray: whether each pixel becomes the mean of its channels, three times over.
    """

    __test__ = False  # The name is not that of a test class.

    image_size: int
    shorter_side: int | None
    padding: float = 0.0
    gray: bool = False

    def __post_init__(self) -> None:
        if self.image_size < 1 or (self.shorter_side is not None and self.shorter_side < 1):
            raise ValueError(
                f"image_size and shorter_side must be at least 1, "
                f"found {self.image_size} and {self.shorter_side}"
            )


Augmentation = TrainPreprocessing | PadAndCrop


def decode_rgb(encoded: tf.Tensor, box: tf.Tensor | None = None) -> tf.Tensor:
    """Decodes a JPEG or PNG image.

    Args:
        encoded: scalar string.
        box: int32 [4], top, left, height and width of the part to return; of a JPEG only that is decoded.
            None: the whole image.

    Returns:
        uint8 RGB [H, W, 3].
    """
    if box is None:
        return tf.cond(
            tf.io.is_jpeg(encoded),
            lambda: tf.io.decode_jpeg(encoded, channels=3, dct_method="INTEGER_ACCURATE"),
            lambda: tf.io.decode_png(encoded, channels=3),
        )
    return tf.cond(
        tf.io.is_jpeg(encoded),
        lambda: tf.image.decode_and_crop_jpeg(encoded, box, channels=3, dct_method="INTEGER_ACCURATE"),
        lambda: _part(tf.io.decode_png(encoded, channels=3), box),
    )


def _part(image: tf.Tensor, box: tf.Tensor) -> tf.Tensor:
    return tf.slice(image, tf.pad(box[:2], [[0, 1]]), tf.concat([box[2:], [3]], 0))


def train_image(
    encoded: tf.Tensor,
    config: Augmentation | TestPreprocessing,
    seed: tf.Tensor,
    box: tf.Tensor | None = None,
) -> tf.Tensor:
    """Decodes and augments one image.

    Args:
        encoded: scalar string, JPEG or PNG.
        config: options; those of test images for no augmentation.
        seed: int32 [2]; the result is a function of the image and of it.
        box: int32 [4], top, left, height and width of the part that is the image; None: all of it.

    Returns:
        float32 RGB [S, S, 3], 0..255.
    """
    if isinstance(config, TestPreprocessing):
        return test_image(encoded, config, box)
    if isinstance(config, PadAndCrop):
        return _padded_and_cropped(decode_rgb(encoded, box), config, seed)
    return _resized_window(encoded, config, seed, box)


def _padded_and_cropped(image: tf.Tensor, config: PadAndCrop, seed: tf.Tensor) -> tf.Tensor:
    draws = tf.random.stateless_uniform([3], seed)
    side, places = config.image_size, config.padded_size - config.image_size + 1
    image = central_crop_or_pad(tf.cast(image, tf.float32), config.padded_size, config.padding)
    # A draw next to 1 times a large float may round up to the bound itself.
    begin = tf.minimum(tf.cast(draws[:2] * places, tf.int32), places - 1)
    image = image[begin[0] : begin[0] + side, begin[1] : begin[1] + side]
    if config.flip:
        image = _mirrored_if(draws[2] < 0.5, image)
    return tf.ensure_shape(image, [side, side, 3])


def _resized_window(
    encoded: tf.Tensor, config: TrainPreprocessing, seed: tf.Tensor, box: tf.Tensor | None
) -> tf.Tensor:
    """A window of the image, resized; of a JPEG only the window is decoded."""
    draws = tf.random.stateless_uniform([WINDOW_ATTEMPTS * 4 + 1], seed)

    def from_jpeg() -> tf.Tensor:
        window = _window(tf.image.extract_jpeg_shape(encoded), box, config, draws)
        return tf.image.decode_and_crop_jpeg(encoded, window, channels=3, dct_method="INTEGER_ACCURATE")

    def from_png() -> tf.Tensor:
        image = tf.io.decode_png(encoded, channels=3)
        return _part(image, _window(tf.shape(image), box, config, draws))

    image = _resize(
        tf.cond(tf.io.is_jpeg(encoded), from_jpeg, from_png), config.image_size, config.image_size
    )
    if config.flip:
        image = _mirrored_if(draws[-1] < 0.5, image)
    return tf.ensure_shape(image, [config.image_size, config.image_size, 3])


def _mirrored_if(mirror: tf.Tensor, image: tf.Tensor) -> tf.Tensor:
    # A slice with a negative stride takes as long as decoding the image.
    return tf.cond(mirror, lambda: tf.reverse(image, [1]), lambda: image)


def _window(
    shape: tf.Tensor, box: tf.Tensor | None, config: TrainPreprocessing, draws: tf.Tensor
) -> tf.Tensor:
    """Random window of the box, or else of the whole image, in the coordinates of the image."""
    size = shape if box is None else box[2:]
    window = crop_window(
        size[0],
        size[1],
        tf.reshape(draws[: WINDOW_ATTEMPTS * 4], [WINDOW_ATTEMPTS, 4]),
        area_range=config.area_range,
        aspect_range=config.aspect_range,
    )
    return window if box is None else window + tf.pad(box[:2], [[0, 2]])


def test_image(image: tf.Tensor, config: TestPreprocessing, box: tf.Tensor | None = None) -> tf.Tensor:
    """Resizes the shorter side, unless told not to, and crops the centre.

    Args:
        image: scalar string (JPEG or PNG), or RGB pixels [H, W, 3] of any numeric type.
        config: options.
        box: int32 [4], top, left, height and width of the part that is the image; None: all of it.

    Returns:
        float32 RGB [S, S, 3], in the units of the pixels (0..255 from an encoded image).
    """
    if image.dtype == tf.string:
        image = decode_rgb(image, box)
    elif box is not None:
        image = _part(image, box)
    if config.shorter_side is None:
        image = tf.cast(image, tf.float32)
    else:
        image = resize_shorter_side(image, config.shorter_side)
    image = central_crop_or_pad(image, config.image_size, config.padding)
    if config.gray:
        image = tf.repeat(tf.reduce_mean(image, axis=-1, keepdims=True), 3, axis=-1)
    return image


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


def central_crop_or_pad(image: tf.Tensor, image_size: int, padding: float = 0) -> tf.Tensor:
    """Crops the centre of an image, or pads it on all sides, to a square.

    Where the difference is odd, the lower and right sides lose one pixel more (or get one more).

    Args:
        image: [H, W, C].
        image_size: side S of the square.
        padding: value of the pixels that are added.

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


def _resize(image: tf.Tensor, height: tf.Tensor | int, width: tf.Tensor | int) -> tf.Tensor:
    size = tf.stack([height, width])
    return tf.raw_ops.ResizeBilinear(images=image[tf.newaxis], size=size, half_pixel_centers=True)[0]
