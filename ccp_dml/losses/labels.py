"""The labels of a batch. Their shape, dtype and range are checked here, for all losses."""

from __future__ import annotations

import tensorflow as tf


def class_labels(labels: tf.Tensor, num_classes: int | None = None) -> tf.Tensor:
    """Returns the classes [B] of labels [B], [B, 1] or [B, 2] = (class, image id).

    Args:
        labels: integers of any dtype.
        num_classes: C, if labels have to be class numbers 0..C-1; None if they may be any integers. In a
            `tf.function` the range is checked by an assertion, which XLA and `python -O` leave out.

    Returns:
        int32 [B], or without `num_classes` int64 [B] where the dtype has more values than int32. Two of them
        are equal if and only if the labels are, in their own dtype.

    Raises:
        ValueError: if the labels have another shape, are no integers, or are known to be out of range.
        tf.errors.InvalidArgumentError: if the labels of a `tf.function` are out of range.
    """
    labels = tf.convert_to_tensor(labels)
    if labels.shape.rank == 2 and labels.shape[1] in (1, 2):
        labels = labels[:, 0]
    if labels.shape.rank != 1:
        raise ValueError(
            f"labels have the shape {labels.shape}; expected [B], [B, 1], or [B, 2] = (class, image id)"
        )
    classes = _as_signed(labels)
    if num_classes is None:
        return classes
    return tf.cast(_in_range(labels, classes, num_classes), tf.int32)


def image_ids(labels: tf.Tensor) -> tf.Tensor | None:
    """Returns image ids int64 [B] of labels [B, 2] = (class, image id); None for labels without ids."""
    labels = tf.convert_to_tensor(labels)
    if labels.shape.rank == 2 and labels.shape[1] == 2:
        return tf.cast(_as_signed(labels[:, 1]), tf.int64)
    return None


def _as_signed(labels: tf.Tensor) -> tf.Tensor:
    """Maps integers one to one to int32, or to int64 if their dtype has more values."""
    # An empty list has no dtype; TensorFlow makes it a float32 tensor.
    if not labels.dtype.is_integer and labels.shape.num_elements() != 0:
        raise ValueError(
            f"labels have the dtype {labels.dtype.name}; expected integers, such as int32 or int64, "
            "that number the classes"
        )
    if labels.dtype == tf.uint64:
        return tf.bitcast(labels, tf.int64)
    return tf.cast(labels, tf.int64 if labels.dtype in (tf.int64, tf.uint32) else tf.int32)


def _in_range(labels: tf.Tensor, classes: tf.Tensor, num_classes: int) -> tf.Tensor:
    """Returns the classes; an error, now or when the graph is run, says which one is not 0..num_classes-1."""
    problem = "a label is"
    expected = f"expected 0..{num_classes - 1}, as the loss has {num_classes} classes"
    known = tf.get_static_value(labels)
    if known is not None:
        outside = known[(known < 0) | (known >= num_classes)]
        if outside.size:
            raise ValueError(f"{problem} {outside[0]}; {expected}")
        return classes
    if not __debug__:
        return classes
    least, most = tf.reduce_min(classes), tf.reduce_max(classes)
    check = tf.debugging.Assert(
        (least >= 0) & (most < num_classes), [problem, tf.where(least < 0, least, most), f"; {expected}"]
    )
    with tf.control_dependencies([check]):
        return tf.identity(classes)
