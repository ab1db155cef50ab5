"""From an encoded image to the pixels that a model gets: float32 RGB, 0..255, [S, S, 3].

Test images: the shorter side is resized, unless images are not to be, then the centre cropped. Training
images are the matter of `augmentation`. Resizing is bilinear with half-pixel centres, without antialiasing.
What a backbone makes of 0..255 (mean, scale, channel order) is the model's first layer.
"""

from __future__ import annotations

from dataclasses import dataclass

import tensorflow as tf

from ccp_dml.data.branches import either


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
