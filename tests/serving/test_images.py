"""Decoding of JPEG, PNG and GIF files, their transparency and orientation."""

from __future__ import annotations

import io

import numpy as np
import pytest
import tensorflow as tf
from PIL import Image, ImageOps

from ccp_dml.data.images import decode_rgb
from ccp_dml.serving.images import decode_upright_rgb
from ccp_dml.serving.metadata import jpeg_metadata

decode = tf.function(decode_upright_rgb, input_signature=[tf.TensorSpec([], tf.string)])
ORIENTATION = 0x0112


def picture(mode: str = "RGB") -> Image.Image:
    rows, columns = np.mgrid[0:24, 0:40]
    pixels = np.stack([rows * 10, columns * 6, rows * 3 + columns * 3, 255 - rows * columns % 256], -1)
    image = Image.fromarray(pixels.astype(np.uint8), "RGBA")
    return image.convert(mode) if mode.endswith("A") else image.convert("RGB").convert(mode)


def encoded(image: Image.Image, file_format: str, **options) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, file_format, **options)
    return buffer.getvalue()


def exif(orientation: int, *, big_endian: bool) -> Image.Exif:
    result = Image.Exif()
    result.endian = ">" if big_endian else "<"
    result[0x010F] = "A camera maker"  # a tag before the orientation, stored outside of the directory
    result[ORIENTATION] = orientation
    result[0x0131] = "software"
    return result


@pytest.mark.parametrize("mode", ["RGB", "L", "P"])
def test_png_files_have_the_same_pixels_as_in_pillow(mode):
    image = picture(mode)
    np.testing.assert_array_equal(decode(encoded(image, "PNG")), image.convert("RGB"))


def test_the_first_frame_of_a_gif_is_decoded():
    image = picture("P")
    content = encoded(image, "GIF", save_all=True, append_images=[ImageOps.mirror(image)])
    np.testing.assert_array_equal(decode(content), image.convert("RGB"))


@pytest.mark.parametrize("mode", ["RGBA", "LA"])
def test_transparent_pixels_are_laid_on_white(mode):
    image = picture(mode)
    expected = Image.new("RGBA", image.size, "white")
    expected.alpha_composite(image.convert("RGBA"))
    actual = decode(encoded(image, "PNG")).numpy().astype(int)
    assert np.abs(actual - np.asarray(expected.convert("RGB"), int)).max() <= 1
    assert actual.max() == 255


@pytest.mark.parametrize("content", [encoded(picture(), "JPEG"), encoded(picture("RGB"), "PNG")])
def test_plain_images_decode_as_in_the_evaluation(content):
    np.testing.assert_array_equal(decode(content), decode_rgb(tf.constant(content)))


@pytest.mark.parametrize("mode", ["L", "CMYK"])
def test_other_jpeg_colours_become_rgb(mode):
    image = picture(mode)
    actual = decode(encoded(image, "JPEG", quality=95)).numpy().astype(int)
    assert np.abs(actual - np.asarray(image.convert("RGB"), int)).mean() < 6


@pytest.mark.parametrize("big_endian", [False, True])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_a_jpeg_is_turned_by_its_orientation(orientation, big_endian):
    content = encoded(picture(), "JPEG", exif=exif(orientation, big_endian=big_endian), comment=b"comment")
    stored = decode_rgb(tf.constant(content)).numpy()
    noted = Image.fromarray(stored)
    noted.getexif()[ORIENTATION] = orientation
    np.testing.assert_array_equal(decode(content), np.asarray(ImageOps.exif_transpose(noted)))


def with_segments(*segments: bytes) -> bytes:
    """A JPEG with the given bytes between its first marker and the rest."""
    plain = encoded(picture(), "JPEG")
    return plain[:2] + b"".join(segments) + plain[2:]


def exif_segment(tiff: bytes) -> bytes:
    payload = b"Exif\x00\x00" + tiff
    return b"\xff\xe1" + (len(payload) + 2).to_bytes(2, "big") + payload


def tiff(value: int, *, directory: int = 8, count: int = 1) -> bytes:
    entry = (0x0112).to_bytes(2, "little") + b"\x03\x00" + b"\x01\x00\x00\x00" + value.to_bytes(4, "little")
    return b"II*\x00" + directory.to_bytes(4, "little") + count.to_bytes(2, "little") + entry


COMMENT = b"\xff\xfe\x00\x09comment"


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        (with_segments(), 1),
        (with_segments(exif_segment(tiff(6))), 6),
        (with_segments(COMMENT, COMMENT, exif_segment(tiff(8))), 8),
        (with_segments(exif_segment(tiff(0))), 1),
        (with_segments(exif_segment(tiff(9))), 1),
        (with_segments(exif_segment(tiff(6, directory=0xFFFFFFFF))), 1),
        (with_segments(exif_segment(tiff(6, directory=0x7FFFFFF0))), 1),
        (with_segments(exif_segment(tiff(6, count=0))), 1),
        (with_segments(exif_segment(b"")), 1),
        (with_segments(exif_segment(b"II")), 1),
        (b"\xff\xd8\xff\xe1", 1),
        (b"\xff\xd8\xff\xe0\xff\xff", 1),
        (b"\xff\xd8\xff\xfe\x00\x00\xff\xfe\x00\x00", 1),
        (b"\xff\xd8\xff", 1),
    ],
)
def test_a_missing_or_malformed_orientation_is_upright(content, expected):
    assert int(jpeg_metadata(tf.constant(content)).orientation) == expected


@pytest.mark.parametrize("content", [b"no image", b"", encoded(picture(), "BMP")])
def test_bytes_of_unsupported_files_are_an_error(content):
    with pytest.raises(tf.errors.InvalidArgumentError):
        decode(content)
