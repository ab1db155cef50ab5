"""Reads of the bytes of an encoded image inside a graph."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeAlias

import tensorflow as tf

Place: TypeAlias = "tf.Tensor | int"
State: TypeAlias = tuple[tf.Tensor, ...]

# Segments, chunks or blocks of a file. A file of more is refused, as its bytes would cost a step each.
MOST_STEPS = 2**14


def part(text: tf.Tensor, begin: Place, count: Place) -> tf.Tensor:
    """Returns `count` bytes of a scalar string from `begin` on; fewer if it ends before."""
    return tf.strings.substr(text, tf.cast(begin, tf.int64), tf.cast(count, tf.int64))


def walk(goes_on: Callable[..., tf.Tensor], step: Callable[..., State], start: State) -> State:
    """Repeats a step from one part of a file to the next, as `tf.while_loop`.

    Raises:
        tf.errors.InvalidArgumentError: when run, if there are more than `MOST_STEPS` steps.
    """
    end = tf.while_loop(goes_on, step, start, maximum_iterations=MOST_STEPS)
    is_end = tf.debugging.Assert(~goes_on(*end), [f"image file of more than {MOST_STEPS} segments"])
    with tf.control_dependencies([is_end]):
        return tuple(tf.identity(value) for value in end)


class Content:
    """The bytes of a file; zeros follow its end, so that no read needs a check of its range.

    Attributes:
        encoded: scalar string, the bytes.
        size: scalar int64, their number.
    """

    def __init__(self, encoded: tf.Tensor) -> None:
        self.encoded = encoded
        self.size = tf.cast(tf.strings.length(encoded), tf.int64)
        self._bytes = tf.concat([tf.io.decode_raw(encoded, tf.uint8), tf.zeros([1], tf.uint8)], 0)

    def values(self, begin: Place, count: Place = 1) -> tf.Tensor:
        """Returns the bytes from `begin` on as int64 [count]."""
        places = tf.cast(begin, tf.int64) + tf.range(tf.cast(count, tf.int64))
        return tf.cast(tf.gather(self._bytes, tf.clip_by_value(places, 0, self.size)), tf.int64)

    def byte(self, place: Place) -> tf.Tensor:
        """Returns a byte as a scalar int64."""
        return self.values(place)[0]

    def number(self, begin: Place, count: int, little_endian: tf.Tensor | bool = False) -> tf.Tensor:
        """Returns the unsigned number of `count` bytes from `begin` on, scalar int64."""
        digits = self.values(begin, count)
        digits = tf.where(little_endian, digits[::-1], digits)
        return tf.reduce_sum(digits * tf.constant([256**i for i in reversed(range(count))], tf.int64))

    def text(self, begin: Place, count: Place) -> tf.Tensor:
        """Returns the bytes from `begin` on as a scalar string; fewer if the file ends before."""
        return part(self.encoded, tf.minimum(tf.cast(begin, tf.int64), self.size), count)

    def starts_with(self, begin: Place, expected: bytes) -> tf.Tensor:
        """Returns True if the bytes from `begin` on are the expected ones, scalar bool."""
        return tf.equal(self.text(begin, len(expected)), expected)
