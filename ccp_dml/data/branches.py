"""Branches of the functions that an input pipeline maps over images."""

from __future__ import annotations

from collections.abc import Callable

import tensorflow as tf

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
