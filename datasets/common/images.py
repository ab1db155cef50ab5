"""Conversion of image files to upright RGB images, encoded as JPEG or PNG."""

from __future__ import annotations

import concurrent.futures
import contextlib
import io
import itertools
import os
import threading
import warnings
from collections.abc import Callable, Iterable, Iterator
from typing import TypeVar

import numpy as np
import tensorflow as tf
from PIL import Image

FORMATS = ("JPEG", "PNG", "BMP", "GIF", "WEBP")
# TensorFlow decodes no image of 2^29 bytes or more; this many pixels stay just below.
MAX_PIXELS = 178_956_970
MAX_PNG_PIXELS = 2**20
JPEG_QUALITY = 95

_MAX_JPEG_SIDE = 65_500
_EXIF_ORIENTATION = 0x0112
_UPRIGHT = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
_IMAGES_AT_A_TIME = 64
# Pillow takes 4 bytes for a pixel and TensorFlow 3. An image that is drawn is held twice.
_BYTES_TO_CHECK, _BYTES_TO_DRAW = 8, 12
_PIXELS_OF_A_BAND = 2**20
# Frames of JPEG, which hold the size: C0 to CF except for tables and a reserved marker.
_FRAMES = frozenset(range(0xC0, 0xD0)) - {0xC4, 0xC8, 0xCC}

# Pillow's setting PILLOW_BLOCK_SIZE. Of blocks of up to 32 MB, glibc keeps freed ones for the same thread.
Image.core.set_block_size(2**26)

Key = TypeVar("Key")


class ImageError(ValueError):
    """An image file cannot be used; the message names the file and gives the reason."""


class _Budget:
    """An amount that threads share: who wants more than is left waits until others have given back."""

    def __init__(self, amount: int):
        self._amount = self._left = amount
        self._changed = threading.Condition()

    @contextlib.contextmanager
    def take(self, amount: int) -> Iterator[None]:
        """Takes an amount for the duration of the context; one above the budget takes all of it."""
        amount = min(amount, self._amount)
        with self._changed:
            self._changed.wait_for(lambda: self._left >= amount)
            self._left -= amount
        try:
            yield
        finally:
            with self._changed:
                self._left += amount
                self._changed.notify_all()


# Bytes of pixels that all threads together hold.
DECODED_BYTES = _Budget(2**31)


def convert_all(
    files: Iterable[tuple[Key, str, Callable[[], bytes]]],
) -> Iterator[tuple[Key, bytes | ImageError]]:
    """Converts many image files in parallel; see `upright_rgb`.

    Args:
        files: (key, name for errors, function that reads the bytes) of each image. The functions are called
            in threads and may raise `OSError`.

    Yields:
        The key of each image, in the order given, with its encoded image or the error.
    """
    rest = iter(files)
    # Pillow decodes without the interpreter's lock. Chunks limit the number of images in memory.
    with concurrent.futures.ThreadPoolExecutor(os.cpu_count()) as pool:
        while chunk := list(itertools.islice(rest, _IMAGES_AT_A_TIME)):
            # The filters of warnings belong to the process, so the threads cannot set them.
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                converted = list(pool.map(lambda file: _convert(file[1], file[2]), chunk))
            yield from zip((key for key, _, _ in chunk), converted)


def _convert(name: str, read: Callable[[], bytes]) -> bytes | ImageError:
    try:
        return upright_rgb(read(), name)
    except ImageError as error:
        return error
    except OSError as error:
        return ImageError(f"{name}: cannot be read ({error.strerror or error})")


def upright_rgb(data: bytes, name: str) -> bytes:
    """Converts an image file to an upright RGB image, encoded as JPEG or PNG.

    A JPEG of three components that needs no rotation is returned byte for byte, after its pixels were decoded
    to check that they are complete. All other images (PNG, BMP, the first frame of a GIF or WebP, grayscale,
    palette, CMYK, 16 bits, transparency, EXIF rotation, JPEG with stray bytes before its frame) are drawn
    onto white and encoded again:

    - JPEG files, and images above `MAX_PNG_PIXELS`, as JPEG of quality 95 without chroma subsampling. As PNG,
      a photograph takes several times the bytes and the time to decode, for a difference that is not visible.
    - All others as PNG, which loses nothing. JPEG would blur the edges of drawings and small images.

    Training decodes with TensorFlow, which refuses some damage that Pillow fills with gray. Therefore it has
    to decode a JPEG file, and what is made of files of other formats, here as well. Pillow may warn of large
    images and of damaged metadata; both are accepted. Threads that call this function share `DECODED_BYTES`.

    Args:
        data: the bytes of an image file.
        name: name of the file in errors.

    Raises:
        ImageError: if the file is empty, of another format, damaged or truncated, or has more than
            `MAX_PIXELS` pixels.
    """
    image = _open(data, name)
    is_jpeg = image.format in ("JPEG", "MPO")
    is_plain = (
        is_jpeg and image.mode == "RGB" and _orientation(image) not in _UPRIGHT and _has_plain_header(data)
    )
    pixels = image.width * image.height
    with DECODED_BYTES.take(pixels * (_BYTES_TO_CHECK if is_plain else _BYTES_TO_DRAW)):
        try:
            image.load()
        except Exception as error:
            raise ImageError(f"{name}: the image is truncated or damaged ({error})") from None
        if is_jpeg:
            _check_with_tensorflow(data, image.size, name)
        if is_plain:
            return data
        try:
            orientation = _orientation(image)
            image = _in_bands(_on_white, image)
            if orientation in _UPRIGHT:
                image = image.transpose(_UPRIGHT[orientation])
            encoded = _encode(image, as_photograph=is_jpeg)
        except Exception as error:  # Damage of palettes and transparency shows here.
            raise ImageError(f"{name}: the image is damaged ({error})") from None
        if not is_jpeg:
            _check_with_tensorflow(encoded, image.size, name)
        return encoded


def _check_with_tensorflow(encoded: bytes, size: tuple[int, int], name: str) -> None:
    """Raises `ImageError` unless TensorFlow decodes a JPEG or PNG image to the given width and height."""
    try:
        shape = _decoded_shape(encoded).numpy()
    except tf.errors.OpError:
        raise ImageError(f"{name}: the image is damaged (TensorFlow cannot decode it)") from None
    if tuple(shape) != (size[1], size[0], 3):
        raise ImageError(
            f"{name}: the image is damaged (Pillow reads {size[0]} x {size[1]} pixels, TensorFlow "
            f"{shape[1]} x {shape[0]})"
        )


@tf.function(input_signature=[tf.TensorSpec([], tf.string)])
def _decoded_shape(encoded: tf.Tensor) -> tf.Tensor:
    """Decodes an image as training does. A function: outside, each thread would keep its last image."""
    with tf.device("CPU"):
        return tf.shape(tf.io.decode_jpeg(encoded, channels=3, dct_method="INTEGER_ACCURATE"))


def _has_plain_header(jpeg: bytes) -> bool:
    """Returns True if the segments of a JPEG before its frame follow one another, as every reader expects.

    Decoders skip stray bytes and markers without content, but readers of the size alone do not.
    """
    place = 2
    while jpeg[place : place + 1] == b"\xff" and place + 9 <= len(jpeg):
        marker = jpeg[place + 1]
        if marker == 0xFF:  # A fill byte before a marker.
            place += 1
        elif marker in _FRAMES:
            return True
        elif marker < 0xC0 or 0xD0 <= marker <= 0xD9:  # Markers without content.
            return False
        else:
            place += 2 + int.from_bytes(jpeg[place + 2 : place + 4], "big")
    return False


def _open(data: bytes, name: str) -> Image.Image:
    """Reads the header of an image file."""
    if not data:
        raise ImageError(f"{name}: the file is empty")
    try:
        image = Image.open(io.BytesIO(data), formats=FORMATS)
    except Image.UnidentifiedImageError:
        raise ImageError(
            f"{name}: not a JPEG, PNG, BMP, GIF or WebP image, or its header is damaged"
        ) from None
    except Image.DecompressionBombError:
        raise ImageError(f"{name}: more than {MAX_PIXELS:,} pixels") from None
    except Exception as error:  # Damaged headers lead decoders to errors of many types.
        raise ImageError(f"{name}: the header is damaged ({error})") from None
    if image.width * image.height > MAX_PIXELS:
        raise ImageError(f"{name}: {image.width} x {image.height} pixels; expected at most {MAX_PIXELS:,}")
    return image


def _orientation(image: Image.Image) -> int:
    """Returns the EXIF orientation; 1, upright, if the metadata are missing or damaged."""
    try:
        return image.getexif().get(_EXIF_ORIENTATION, 1)
    except Exception:
        return 1


def _in_bands(draw: Callable[[Image.Image], Image.Image], image: Image.Image) -> Image.Image:
    """Applies a function that makes RGB images to bands of rows, since it takes many bytes for a pixel."""
    drawn = Image.new("RGB", image.size)
    rows = max(_PIXELS_OF_A_BAND // image.width, 1)
    for top in range(0, image.height, rows):
        band = image.crop((0, top, image.width, min(top + rows, image.height)))
        drawn.paste(draw(band), (0, top))
    return drawn


def _on_white(image: Image.Image) -> Image.Image:
    if image.mode.startswith("I"):
        return _from_16_bits(image)
    if not image.has_transparency_data:
        return image.convert("RGB")
    ground = Image.new("RGBA", image.size, "white")
    return Image.alpha_composite(ground, image.convert("RGBA")).convert("RGB")


def _from_16_bits(image: Image.Image) -> Image.Image:
    # Pillow's conversion would clip 16-bit grayscale at 255.
    deep = np.asarray(image)
    gray = np.clip(deep, 0, 65535 - 128).astype(np.uint16)
    gray += 128
    gray //= 257
    transparent = image.info.get("transparency")
    if transparent is not None:
        gray[deep == transparent] = 255
    return Image.fromarray(gray.astype(np.uint8)).convert("RGB")


def _encode(image: Image.Image, as_photograph: bool) -> bytes:
    output = io.BytesIO()
    as_photograph = as_photograph or image.width * image.height > MAX_PNG_PIXELS
    if as_photograph and max(image.size) <= _MAX_JPEG_SIDE:
        image.save(output, "jpeg", quality=JPEG_QUALITY, subsampling=0)
    else:
        image.save(output, "png")
    return output.getvalue()
