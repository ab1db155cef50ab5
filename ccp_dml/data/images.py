"""From an encoded image to the pixels that a model gets: float32 RGB, 0..255, [S, S, 3].

Test images: the shorter side is resized, unless images are not to be, then the centre cropped. Training
images are the matter of `augmentation`. Resizing is bilinear with half-pixel centres, without antialiasing.
What a backbone makes of 0..255 (mean, scale, channel order) is the model's first layer.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import tensorflow as tf

from ccp_dml.data.options import ImageOptions

_MID_GRAY = 127.5
# CIFAR images of 32 pixels are shifted by up to 4 in each direction: cut out of 40.
_PADDED_SIZE_RATIO = 40 / 32


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


def train_preprocessing(options: ImageOptions) -> Augmentation | TestPreprocessing:
    """The augmentation of training images; that of test images if there is none."""
    assert options.image_size is not None
    if options.preprocessing == "mnist":
        return test_preprocessing(options)
    if options.preprocessing == "cifar":
        padded_size = round(options.image_size * _PADDED_SIZE_RATIO)
        return PadAndCrop(options.image_size, padded_size, _MID_GRAY, options.horizontal_flip)
    return TrainPreprocessing(
        options.image_size,
        area_range=(options.crop_area_min, options.crop_area_max),
        aspect_range=(options.crop_aspect_min, options.crop_aspect_max),
        flip=options.horizontal_flip,
    )


def test_preprocessing(options: ImageOptions) -> TestPreprocessing:
    """The resize and crop of images that are evaluated."""
    assert options.image_size is not None
    return TestPreprocessing(
        options.image_size,
        options.test_shorter_side,
        padding=_MID_GRAY if options.preprocessing == "cifar" else 0.0,
        gray=options.preprocessing == "mnist",
    )


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
        # Whatever its name, the operation decodes PNG as well.
        return tf.io.decode_jpeg(encoded, channels=3, dct_method="INTEGER_ACCURATE")
    return either(
        tf.io.is_jpeg(encoded),
        lambda jpeg: tf.image.decode_and_crop_jpeg(jpeg, box, channels=3, dct_method="INTEGER_ACCURATE"),
        lambda png: _part(tf.io.decode_png(png, channels=3), box),
        encoded,
    )


def _part(image: tf.Tensor, box: tf.Tensor) -> tf.Tensor:
    return tf.slice(image, tf.pad(box[:2], [[0, 1]]), tf.concat([box[2:], [3]], 0))


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
    # Rounding may make the shorter side a pixel shorter than asked for.
    if config.shorter_side is not None and config.shorter_side > config.image_size:
        image = _central_crop(image, config.image_size)
    else:
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
    return resize(image, new_size[0], new_size[1])


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


def _central_crop(image: tf.Tensor, image_size: int) -> tf.Tensor:
    """What `central_crop_or_pad` does with images that are large enough, in fewer operations."""
    begin = (tf.shape(image) - image_size) // 2
    cropped = tf.slice(image, begin * [1, 1, 0], [image_size, image_size, -1])
    return tf.ensure_shape(cropped, [image_size, image_size, image.shape[-1]])


def resize(image: tf.Tensor, height: tf.Tensor | int, width: tf.Tensor | int) -> tf.Tensor:
    """Resizes an image [H, W, C] to [height, width, C], float32; see the top of this module."""
    size = tf.stack([height, width])
    return tf.raw_ops.ResizeBilinear(images=image[tf.newaxis], size=size, half_pixel_centers=True)[0]


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


Branch = Callable[[tf.Tensor], tf.Tensor]


def either(condition: tf.Tensor, if_true: Branch, if_false: Branch, value: tf.Tensor) -> tf.Tensor:
    """Applies one of two functions to a tensor.

    `tf.data` runs `tf.cond` as the call of a function, about 50 microseconds for each image. The operations
    here are those that TensorFlow makes of `tf.cond` elsewhere. Nothing may be differentiated through them.

    Args:
        condition: scalar bool.
        if_true: from the value to a tensor; at least one of its operations must depend on the value directly,
            and all that are not to run in vain.
        if_false: likewise, with a result of the same type.
        value: any tensor.

    Returns:
        What the chosen function returns.
    """
    if tf.executing_eagerly():
        return if_true(value) if condition else if_false(value)
    value_if_false, value_if_true = tf.raw_ops.Switch(data=value, pred=condition)
    return tf.raw_ops.Merge(inputs=[if_false(value_if_false), if_true(value_if_true)]).output
