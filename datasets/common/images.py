"""Conversion of image files to upright RGB images, encoded as JPEG or PNG."""

from __future__ import annotations

import concurrent.futures
import io
import itertools
import os
import warnings
from collections.abc import Callable, Iterable, Iterator
from typing import TypeVar

import numpy as np
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

Key = TypeVar("Key")


class ImageError(ValueError):
    """An image file cannot be used; the message names the file and gives the reason."""


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
    palette, CMYK, 16 bits, transparency, EXIF rotation) are drawn onto white and encoded again:

    - JPEG files, and images above `MAX_PNG_PIXELS`, as JPEG of quality 95 without chroma subsampling. As PNG,
      a photograph takes several times the bytes and the time to decode, for a difference that is not visible.
    - All others as PNG, which loses nothing. JPEG would blur the edges of drawings and small images.

    Pillow may warn of large images and of damaged metadata; both are accepted.

    Args:
        data: the bytes of an image file.
        name: name of the file in errors.

    Raises:
        ImageError: if the file is empty, of another format, damaged or truncated, or has more than
            `MAX_PIXELS` pixels.
    """
    image = _load(data, name)
    orientation = _orientation(image)
    is_jpeg = image.format in ("JPEG", "MPO")
    if is_jpeg and image.mode == "RGB" and orientation not in _UPRIGHT:
        return data
    try:
        rgb = _on_white(image)
        if orientation in _UPRIGHT:
            rgb = rgb.transpose(_UPRIGHT[orientation])
        return _encode(rgb, as_photograph=is_jpeg)
    except Exception as error:  # Damage of palettes and transparency shows here.
        raise ImageError(f"{name}: the image is damaged ({error})") from None


def _load(data: bytes, name: str) -> Image.Image:
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
    try:
        image.load()
    except Exception as error:
        raise ImageError(f"{name}: the image is truncated or damaged ({error})") from None
    return image


def _orientation(image: Image.Image) -> int:
    """Returns the EXIF orientation; 1, upright, if the metadata are missing or damaged."""
    try:
        return image.getexif().get(_EXIF_ORIENTATION, 1)
    except Exception:
        return 1


def _on_white(image: Image.Image) -> Image.Image:
    if image.mode.startswith("I"):
        return _from_16_bits(image)
    if not image.has_transparency_data:
        return image.convert("RGB")
    ground = Image.new("RGBA", image.size, "white")
    ground.alpha_composite(image.convert("RGBA"))
    return ground.convert("RGB")


def _from_16_bits(image: Image.Image) -> Image.Image:
    # Pillow's conversion would clip 16-bit grayscale at 255.
    gray = np.asarray(image).astype(np.int64)
    transparent = image.info.get("transparency")
    if transparent is not None:
        gray = np.where(gray == transparent, 65535, gray)
    return Image.fromarray(np.clip((gray + 128) // 257, 0, 255).astype(np.uint8)).convert("RGB")


def _encode(image: Image.Image, as_photograph: bool) -> bytes:
    output = io.BytesIO()
    as_photograph = as_photograph or image.width * image.height > MAX_PNG_PIXELS
    if as_photograph and max(image.size) <= _MAX_JPEG_SIDE:
        image.save(output, "jpeg", quality=JPEG_QUALITY, subsampling=0)
    else:
        image.save(output, "png")
    return output.getvalue()
