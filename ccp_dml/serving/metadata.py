"""The metadata of JPEG and PNG files that change their pixels: orientation, transparency, inversion.

An image is turned by the metadata by which Pillow turns it in preparation: the EXIF data of a JPEG (APP1) or
PNG (eXIf) and, for a PNG without, the XMP packet (iTXt that is not compressed).
"""

from __future__ import annotations

from typing import NamedTuple

import tensorflow as tf

from ccp_dml.serving.content import Content, walk

UPRIGHT = 1

_EXIF, _ADOBE, _XMP = b"Exif\0\0", b"Adobe", b"XML:com.adobe.xmp\0"
# Bytes that are searched for the next marker of a JPEG at a time.
_SEARCHED = 1024
# Markers of JPEG segments.
_APP1, _APP14, _SCAN = 0xE1, 0xEE, 0xDA
# Markers without a segment: restarts, the start and the end of an image; and TEM.
_ALONE, _TEM = (0xD0, 0xD9), 0x01

_TIFF_HEADERS = (b"II*\0", b"MM\0*", b"II\0*", b"MM*\0")
_ORIENTATION_TAG = 0x0112
# Bytes of an entry in a directory of the TIFF structure, and entries that are read.
_ENTRY_SIZE, _MOST_ENTRIES = 12, 1024
# Types of numbers in TIFF, and their sizes in bytes.
_NUMBERS = {3: 2, 4: 4, 6: 1, 8: 2, 9: 4}
_XMP_ORIENTATION = r'(?s).*?tiff:Orientation(?:="|>)([0-9]).*'


class Metadata(NamedTuple):
    """Metadata of an image file.

    Attributes:
        orientation: EXIF orientation in 1..8, scalar int64; 1 (upright) without one or with another value.
        is_marked: scalar bool; in a PNG, some colours are transparent (tRNS); in a JPEG, Adobe's segment is
            there.
    """

    orientation: tf.Tensor
    is_marked: tf.Tensor


def jpeg_metadata(encoded: tf.Tensor) -> Metadata:
    """Reads the segments of a JPEG before its image data.

    Args:
        encoded: scalar string, the bytes of the file.
    """
    file = Content(encoded)

    def step(at: tf.Tensor, *state: tf.Tensor) -> tuple[tf.Tensor, ...]:
        """Goes to the next marker, or past the segment at a marker."""
        found = file.values(at, _SEARCHED)
        # Fill bytes and stray bytes are passed over, as by decoders.
        is_marker = tf.equal(found[:-1], 0xFF) & tf.not_equal(found[1:], 0) & tf.not_equal(found[1:], 0xFF)
        is_marker = tf.concat([is_marker, [True]], 0)
        offset = tf.argmax(is_marker)
        return tf.cond(
            tf.equal(offset, 0), lambda: past_segment(at, found[1], *state), lambda: (at + offset, *state)
        )

    def past_segment(
        at: tf.Tensor, marker: tf.Tensor, exif: tf.Tensor, adobe: tf.Tensor
    ) -> tuple[tf.Tensor, ...]:
        is_app1 = tf.equal(marker, _APP1)
        is_alone = ((marker >= _ALONE[0]) & (marker <= _ALONE[1])) | tf.equal(marker, _TEM)
        length = tf.where(~is_alone, tf.maximum(file.number(at + 2, 2), 2), 0)
        exif = tf.where(is_app1 & tf.equal(exif, 0) & file.starts_with(at + 4, _EXIF), at, exif)
        adobe |= tf.equal(marker, _APP14) & file.starts_with(at + 4, _ADOBE)
        return tf.where(tf.equal(marker, _SCAN), file.size, at + 2 + length), exif, adobe

    start = (tf.constant(2, tf.int64), tf.constant(0, tf.int64), tf.constant(False))
    _, exif, adobe = walk(lambda at, *_: at < file.size, step, start)
    tiff = tf.where(exif > 0, file.text(exif + 4, file.number(exif + 2, 2) - 2), "")
    return Metadata(_orientation(tiff, tf.constant("")), adobe)


def png_metadata(encoded: tf.Tensor) -> Metadata:
    """Reads the chunks of a PNG, before and after its image data.

    Args:
        encoded: scalar string, the bytes of the file.
    """
    file = Content(encoded)

    def past_chunk(
        at: tf.Tensor, exif: tf.Tensor, xmp: tf.Tensor, is_transparent: tf.Tensor
    ) -> tuple[tf.Tensor, ...]:
        kind = file.text(at + 4, 4)
        exif = tf.where(tf.equal(kind, b"eXIf"), at, exif)
        xmp = tf.where(tf.equal(kind, b"iTXt") & file.starts_with(at + 8, _XMP), at, xmp)
        is_transparent |= tf.equal(kind, b"tRNS")
        return at + 12 + file.number(at, 4), exif, xmp, is_transparent

    start = (tf.constant(8, tf.int64), tf.constant(0, tf.int64), tf.constant(0, tf.int64), tf.constant(False))
    _, exif, xmp, is_transparent = walk(lambda at, *_: at < file.size, past_chunk, start)
    tiff, packet = (tf.where(at > 0, file.text(at + 8, file.number(at, 4)), "") for at in (exif, xmp))
    return Metadata(_orientation(tiff, packet), is_transparent)


def _orientation(exif: tf.Tensor, xmp: tf.Tensor) -> tf.Tensor:
    """The orientation of EXIF data or, if they have none, of an XMP packet; 1 if neither has a valid one."""
    digit = tf.where(
        tf.strings.regex_full_match(xmp, _XMP_ORIENTATION),
        tf.strings.regex_replace(xmp, _XMP_ORIENTATION, r"\1"),
        str(UPRIGHT),
    )
    # Some writers put the signature into the EXIF of a PNG too.
    tiff = tf.strings.regex_replace(exif, r"^(?:Exif\x00\x00)+", "")
    found = _orientation_entry(Content(tiff))
    found = tf.where(found >= 0, found, tf.strings.to_number(digit, tf.int64))
    return tf.where((found >= 1) & (found <= 8), found, UPRIGHT)


def _orientation_entry(tiff: Content) -> tf.Tensor:
    """The last value of the orientation tag in the first directory of a TIFF structure; -1 without one."""
    little_endian = tiff.starts_with(0, b"II")
    directory = tiff.number(4, 4, little_endian)
    count = tf.minimum(tiff.number(directory, 2, little_endian), (tiff.size - directory - 2) // _ENTRY_SIZE)
    is_valid = tf.reduce_any(tf.equal(tiff.text(0, 4), _TIFF_HEADERS))
    count = tf.where(is_valid, tf.maximum(count, 0), 0)

    def next_entry(index: tf.Tensor, found: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        at = directory + 2 + _ENTRY_SIZE * index
        is_orientation = tf.equal(tiff.number(at, 2, little_endian), _ORIENTATION_TAG)
        count = tiff.number(at + 4, 4, little_endian)
        value = tf.constant(UPRIGHT, tf.int64)
        for kind, size in _NUMBERS.items():
            # Values of more than 4 bytes stand elsewhere.
            place = tf.where(count * size > 4, tiff.number(at + 8, 4, little_endian), at + 8)
            is_number = tf.equal(tiff.number(at + 2, 2, little_endian), kind)
            value = tf.where(is_number, tiff.number(place, size, little_endian), value)
        return index + 1, tf.where(is_orientation, value, found)

    start = (tf.constant(0, tf.int64), tf.constant(-1, tf.int64))
    count = tf.minimum(count, _MOST_ENTRIES)
    return tf.while_loop(lambda index, _: index < count, next_entry, start)[1]
