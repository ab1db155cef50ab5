"""The augmentation of training images: a random window, and mirroring.

Random numbers come from outside, so that an image is a function of (seed, step, place in the batch).
"""

from __future__ import annotations

import abc
import math
from dataclasses import dataclass
from typing import ClassVar

import tensorflow as tf

from ccp_dml.data.images import MID_GRAY, TestPreprocessing, decode_rgb, test_preprocessing
from ccp_dml.data.options import ImageOptions
from ccp_dml.data.resizing import central_crop_or_pad, either, resize
from ccp_dml.kinds import ImageSize, height_and_width

WINDOW_ATTEMPTS = 10
# CIFAR images of 32 pixels are shifted by up to 4 in each direction: windows of a square of 40.
_PADDED_SIZE_RATIO = 40 / 32


class Augmentation(abc.ABC):
    """Base of augmentations: the choice of windows for a batch, and their use for one image.

    Attributes:
        num_draws: number of random numbers per image.
        image_size: side of the result in pixels, or height and width.
        flip: mirror half of the images.
    """

    num_draws: ClassVar[int]
    image_size: ImageSize
    flip: bool

    def choose(self, boxes: tf.Tensor, draws: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        """Chooses the windows of a batch, and the images to mirror.

        Args:
            boxes: int32 [B, 4], top, left, height and width of the part of each encoded image that is used.
            draws: float32 [B, num_draws], uniform in [0, 1).

        Returns:
            Windows, int32 [B, 4], top, left, height and width; and bool [B], True for mirrored images.
        """
        return self._windows(boxes, draws[:, :-1]), (draws[:, -1] < 0.5) & self.flip

    def apply(
        self, encoded: tf.Tensor, window: tf.Tensor, mirrored: tf.Tensor, box: tf.Tensor | None = None
    ) -> tf.Tensor:
        """Decodes and augments one image.

        Args:
            encoded: JPEG or PNG image, scalar string.
            window: int32 [4], from `choose`.
            mirrored: scalar bool, from `choose`.
            box: int32 [4], the box for which the window was chosen; None for the full image.

        Returns:
            float32 RGB [*image_size, 3], 0..255.
        """
        image = self._cut(encoded, window, box)
        if self.flip:
            # `tf.reverse` is fast; a slice with a negative stride takes as long as decoding.
            image = either(mirrored, lambda image: tf.reverse(image, [1]), lambda image: image, image)
        return tf.ensure_shape(image, [*height_and_width(self.image_size), 3])

    @abc.abstractmethod
    def _windows(self, boxes: tf.Tensor, draws: tf.Tensor) -> tf.Tensor:
        """Returns the windows of a batch, int32 [B, 4]."""

    @abc.abstractmethod
    def _cut(self, encoded: tf.Tensor, window: tf.Tensor, box: tf.Tensor | None) -> tf.Tensor:
        """Returns the pixels of a window, float32 [*image_size, 3]."""


@dataclass(frozen=True)
class TrainPreprocessing(Augmentation):
    """Random resized crops; of a JPEG, only the window is decoded.

    Attributes:
        image_size: side of the result in pixels, or height and width.
        area_range: smallest and largest share of the image that a window covers.
        aspect_range: smallest and largest width / height of a window, relative to that of the result.
        flip: mirror half of the images.
        antialias: resize with antialiasing.
    """

    num_draws: ClassVar[int] = 4 * WINDOW_ATTEMPTS + 1

    image_size: ImageSize
    area_range: tuple[float, float] = (ImageOptions.crop_area_min, ImageOptions.crop_area_max)
    aspect_range: tuple[float, float] = (ImageOptions.crop_aspect_min, ImageOptions.crop_aspect_max)
    flip: bool = ImageOptions.horizontal_flip
    antialias: bool = ImageOptions.antialias

    def __post_init__(self) -> None:
        if min(height_and_width(self.image_size)) < 1:
            raise ValueError(f"image_size must be at least 1, found {self.image_size}")
        if not 0 < self.area_range[0] <= self.area_range[1] <= 1:
            raise ValueError(f"area_range must be ascending within (0, 1], found {self.area_range}")
        if not 0 < self.aspect_range[0] <= self.aspect_range[1]:
            raise ValueError(f"aspect_range must be ascending and positive, found {self.aspect_range}")

    def _windows(self, boxes: tf.Tensor, draws: tf.Tensor) -> tf.Tensor:
        attempts = tf.reshape(draws, [-1, WINDOW_ATTEMPTS, 4])
        height, width = height_and_width(self.image_size)
        low, high = (limit * width / height for limit in self.aspect_range)
        windows = crop_windows(boxes[:, 2:], attempts, area_range=self.area_range, aspect_range=(low, high))
        return windows + tf.pad(boxes[:, :2], [[0, 0], [0, 2]])

    def _cut(self, encoded: tf.Tensor, window: tf.Tensor, box: tf.Tensor | None) -> tf.Tensor:
        height, width = height_and_width(self.image_size)
        return resize(decode_rgb(encoded, window), height, width, antialias=self.antialias)


@dataclass(frozen=True)
class PadAndCrop(Augmentation):
    """Random shifts of small images, which are never resized.

    Attributes:
        image_size: side of the result in pixels, or height and width.
        padded_size: side, or height and width, of the area from which windows are cut, at least `image_size`;
            the image is in its center, cropped if it is larger.
        padding: value of the pixels around the image, 0..255.
        flip: mirror half of the images.
    """

    num_draws: ClassVar[int] = 3

    image_size: ImageSize
    padded_size: ImageSize
    padding: float = 0.0
    flip: bool = ImageOptions.horizontal_flip

    def __post_init__(self) -> None:
        sides, padded = height_and_width(self.image_size), height_and_width(self.padded_size)
        if not all(1 <= side <= limit for side, limit in zip(sides, padded)):
            raise ValueError(
                f"image_size must be between 1 and padded_size, "
                f"found {self.image_size} and {self.padded_size}"
            )

    def _windows(self, boxes: tf.Tensor, draws: tf.Tensor) -> tf.Tensor:
        sides = tf.constant(height_and_width(self.image_size))
        places = tf.constant(height_and_width(self.padded_size)) - sides + 1
        # The product of a draw close to 1 and a large float may round up to the bound itself.
        begin = tf.minimum(tf.cast(draws * tf.cast(places, tf.float32), tf.int32), places - 1)
        return tf.concat([begin, tf.ones_like(begin) * sides], 1)

    def _cut(self, encoded: tf.Tensor, window: tf.Tensor, box: tf.Tensor | None) -> tf.Tensor:
        area = central_crop_or_pad(decode_rgb(encoded, box), self.padded_size, self.padding)
        return area[window[0] : window[0] + window[2], window[1] : window[1] + window[3]]


def train_preprocessing(options: ImageOptions) -> Augmentation | TestPreprocessing:
    """Returns the preprocessing of training images for complete options."""
    assert options.image_size is not None
    if options.preprocessing == "mnist":
        return test_preprocessing(options)
    if options.preprocessing == "cifar":
        height, width = (round(side * _PADDED_SIZE_RATIO) for side in height_and_width(options.image_size))
        padded_size = height if isinstance(options.image_size, int) else (height, width)
        return PadAndCrop(options.image_size, padded_size, MID_GRAY, options.horizontal_flip)
    return TrainPreprocessing(
        options.image_size,
        area_range=(options.crop_area_min, options.crop_area_max),
        aspect_range=(options.crop_aspect_min, options.crop_aspect_max),
        flip=options.horizontal_flip,
        antialias=options.antialias,
    )


def crop_windows(
    sizes: tf.Tensor,
    draws: tf.Tensor,
    *,
    area_range: tuple[float, float],
    aspect_range: tuple[float, float],
) -> tf.Tensor:
    """Chooses a random window of each image.

    Each attempt draws an area (uniform), an aspect ratio (with a uniform logarithm) and, for the window with
    this area and aspect rounded to pixels, a position (uniform over all possible ones). The first window that
    fits into the image is taken. If none fits, the largest centered window with an aspect ratio in the range
    is taken.

    Args:
        sizes: int32 [B, 2], height and width of the images.
        draws: float32 [B, attempts, 4], uniform in [0, 1): area, aspect, top and left.
        area_range: smallest and largest share of the image's area.
        aspect_range: smallest and largest width / height.

    Returns:
        int32 [B, 4], top, left, height and width of windows inside the images.
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
    # The product of a draw close to 1 and a large float may round up to the bound itself.
    position = tf.where(found, tf.minimum(place * (images - size + 1), images - size), (images - size) / 2)
    return tf.cast(tf.concat([tf.floor(position), size], 1), tf.int32)
