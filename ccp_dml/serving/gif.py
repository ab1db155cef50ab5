"""The first frame of GIF files, inside a graph.

TensorFlow decodes all frames and takes no account of transparency. So the first frame becomes a file of its
own, in which the transparent colour is white.
"""

from __future__ import annotations

from typing import NamedTuple

import tensorflow as tf

from ccp_dml.serving.content import Content, State, part, walk

_IMAGE, _EXTENSION, _TRAILER = 0x2C, 0x21, 0x3B
_GRAPHIC_CONTROL = 0xF9
# Bytes of the signature with the logical screen, and of an image descriptor.
_SCREEN_SIZE, _IMAGE_SIZE = 13, 10
_HAS_TABLE, _IS_INTERLACED = 0x80, 0x40
_NOT_TRANSPARENT = -1
_TABLE_BYTES = 3 * 256
# Without a colour table, the indices are gray values.
_GRAYS = bytes(value for value in range(256) for _ in range(3))
# Sub-blocks that are passed over at a time if they are equally long, as all but the last usually are.
_AT_A_TIME = 256


class FirstFrame(NamedTuple):
    """The first frame of a GIF.

    Attributes:
        encoded: scalar string, a GIF of this frame alone.
        size: int64 [2], height and width of the image, which the frame may cover in part.
        place: int64 [2], top and left of the frame.
        background: uint8 [3], the colour outside of the frame.
    """

    encoded: tf.Tensor
    size: tf.Tensor
    place: tf.Tensor
    background: tf.Tensor


def first_frame(encoded: tf.Tensor) -> FirstFrame:
    """Cuts the first frame out of a GIF.

    Args:
        encoded: scalar string, the bytes of the file.

    Raises:
        tf.errors.InvalidArgumentError: when run, if the file has no frame or ends before its end.
    """
    file = Content(encoded)
    at, transparent = _first_image(file)
    flags = file.byte(at + 9)
    data = at + _IMAGE_SIZE + tf.where(tf.not_equal(flags & _HAS_TABLE, 0), _table_length(flags), 0)
    end = _past_blocks(file, data + 1)
    is_complete = tf.debugging.Assert(
        tf.equal(file.byte(at), _IMAGE) & (end <= file.size), ["GIF without an image, or truncated"]
    )
    table = _color_table(file, at, transparent)
    size = file.text(at + 5, 4)
    interlaced = tf.where(tf.not_equal(flags & _IS_INTERLACED, 0), b"\x40", b"\0")
    header = tf.strings.join([b"GIF89a", size, b"\xf7\0\0", table])
    with tf.control_dependencies([is_complete]):
        image = tf.strings.join([b",\0\0\0\0", size, interlaced, file.text(data, end - data), b";"])
    place, own, screen = (
        tf.stack([file.number(begin, 2, True) for begin in (left + 2, left)]) for left in (at + 1, at + 5, 6)
    )
    background = tf.io.decode_raw(part(table, 3 * tf.maximum(transparent, 0), 3), tf.uint8)
    background = tf.ensure_shape(background, [3])
    return FirstFrame(tf.strings.join([header, image]), tf.maximum(screen, place + own), place, background)


def on_screen(pixels: tf.Tensor, frame: FirstFrame) -> tf.Tensor:
    """Puts the decoded frame, uint8 [h, w, 3], into its place in the image, uint8 [H, W, 3]."""
    after = frame.size - frame.place - tf.shape(pixels, tf.int64)[:2]
    sides = tf.pad(tf.stack([frame.place, after], 1), [[0, 1], [0, 0]])

    def on_background() -> tf.Tensor:
        inside = tf.pad(tf.ones_like(pixels[..., :1], tf.bool), sides)
        return tf.where(inside, tf.pad(pixels, sides), frame.background)

    return tf.cond(tf.reduce_any(sides > 0), on_background, lambda: pixels)


def _first_image(file: Content) -> tuple[tf.Tensor, tf.Tensor]:
    """The place of the first image descriptor, and the index of the transparent colour."""

    def is_before(at: tf.Tensor, is_in_blocks: tf.Tensor, _: tf.Tensor) -> tf.Tensor:
        kind = file.byte(at)
        return (is_in_blocks | (tf.not_equal(kind, _IMAGE) & tf.not_equal(kind, _TRAILER))) & (at < file.size)

    def step(at: tf.Tensor, is_in_blocks: tf.Tensor, transparent: tf.Tensor) -> State:
        return tf.cond(
            is_in_blocks,
            lambda: (*_past_equal_blocks(file, at), transparent),
            lambda: between_blocks(at, transparent),
        )

    def between_blocks(at: tf.Tensor, transparent: tf.Tensor) -> State:
        is_extension = tf.equal(file.byte(at), _EXTENSION)
        is_control = is_extension & tf.equal(file.byte(at + 1), _GRAPHIC_CONTROL)
        has_transparent = is_control & tf.not_equal(file.byte(at + 3) & 1, 0)
        transparent = tf.where(has_transparent, file.byte(at + 6), transparent)
        return at + tf.where(is_extension, tf.constant(2, tf.int64), 1), is_extension, transparent

    flags = file.byte(10)
    table = tf.where(tf.not_equal(flags & _HAS_TABLE, 0), _table_length(flags), 0)
    start = (_SCREEN_SIZE + table, tf.constant(False), tf.constant(_NOT_TRANSPARENT, tf.int64))
    at, _, transparent = walk(is_before, step, start)
    return at, transparent


def _past_blocks(file: Content, at: tf.Tensor) -> tf.Tensor:
    """The place after a chain of sub-blocks, each after its length; a length of 0 ends it."""
    start = (at, tf.constant(True))
    return walk(lambda _, goes_on: goes_on, lambda at, _: _past_equal_blocks(file, at), start)[0]


def _past_equal_blocks(file: Content, at: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
    """The place after the next sub-blocks of equal length, and False if they were the end of their chain."""
    length = file.byte(at)
    ahead = file.values(at, (length + 1) * _AT_A_TIME)[:: length + 1]
    count = tf.argmin(tf.concat([tf.equal(ahead, length), [False]], 0))
    is_end = tf.equal(length, 0)
    return at + tf.where(is_end, tf.constant(1, tf.int64), (length + 1) * count), ~is_end


def _color_table(file: Content, at: tf.Tensor, transparent: tf.Tensor) -> tf.Tensor:
    """The 256 colours of the image at a place, one of which may be transparent, as a string."""
    table: tf.Tensor = tf.constant(_GRAYS)
    for flags, begin in ((file.byte(10), _SCREEN_SIZE), (file.byte(at + 9), at + _IMAGE_SIZE)):
        has_table = tf.not_equal(flags & _HAS_TABLE, 0)
        table = tf.where(has_table, file.text(begin, _table_length(flags)), table)
    table = part(tf.strings.join([table, bytes(_TABLE_BYTES)]), 0, _TABLE_BYTES)
    index = 3 * tf.maximum(transparent, 0)
    white = tf.strings.join([part(table, 0, index), b"\xff\xff\xff", part(table, index + 3, _TABLE_BYTES)])
    return tf.where(tf.equal(transparent, _NOT_TRANSPARENT), table, white)


def _table_length(flags: tf.Tensor) -> tf.Tensor:
    return 3 * tf.bitwise.left_shift(tf.constant(2, tf.int64), flags & 7)
