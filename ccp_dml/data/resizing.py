"""Resizing, cropping and padding of images.

Resizing is bilinear with half-pixel centers. With antialiasing, a pixel of a smaller image is the mean of all
pixels that it covers, weighted by a triangle; without it, of the four that are nearest to its center.
"""

from __future__ import annotations

from collections.abc import Callable

import tensorflow as tf

from ccp_dml.kinds import ImageSize, height_and_width

# An image is resized before it is cropped up to this ratio of its longer side to that of the crop.
_MOST_WASTE = 8


def resized_size(image: tf.Tensor, shorter_side: int) -> tf.Tensor:
    """Returns the height and width of an image whose shorter side is resized to a length, int64 [2].

    It is `trunc(height / ratio)`, `trunc(width / ratio)` with `ratio = min(height, width) / shorter_side`,
    computed in float32.
    """
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
        return antialiased_window(image, size, tf.zeros_like(size), size)
    size = tf.cast(size, tf.int32)
    return tf.raw_ops.ResizeBilinear(images=image[tf.newaxis], size=size, half_pixel_centers=True)[0]


def antialiased_window(image: tf.Tensor, size: tf.Tensor, begin: tf.Tensor, kept: tf.Tensor) -> tf.Tensor:
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


def resized_window(image: tf.Tensor, size: tf.Tensor, begin: tf.Tensor, kept: tf.Tensor) -> tf.Tensor:
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


def central_crop_or_pad(image: tf.Tensor, image_size: ImageSize, padding: float = 0) -> tf.Tensor:
    """Crops the center of an image, or pads the image on all sides, to a given size.

    If the difference is odd, the lower and right sides lose or get one pixel more.

    Args:
        image: [H, W, C] of any numeric type.
        image_size: side of the result in pixels, or height and width.
        padding: value of added pixels.

    Returns:
        float32 [*image_size, C].
    """
    sides = height_and_width(image_size)
    size = tf.shape(image)[:2]
    begin = tf.maximum(size - sides, 0) // 2
    kept = tf.minimum(size, sides)
    image = image[begin[0] : begin[0] + kept[0], begin[1] : begin[1] + kept[1]]
    missing = sides - kept
    borders = tf.stack([missing // 2, missing - missing // 2], axis=1)
    padded = tf.pad(tf.cast(image, tf.float32), tf.pad(borders, [[0, 1], [0, 0]]), constant_values=padding)
    return tf.ensure_shape(padded, [*sides, image.shape[-1]])


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
