"""Any image file becomes the upright RGB picture that a person would see, encoded as JPEG or PNG."""

from __future__ import annotations

import io

import numpy as np
from PIL import Image

FORMATS = ("JPEG", "PNG", "BMP", "GIF", "WEBP")
MAX_PIXELS = (
    178_956_970  # TensorFlow decodes no image of 2^29 bytes or more; this many pixels stay just below.
)
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


class ImageError(ValueError):
    """An image file cannot be used; the message names the file and says why."""


def upright_rgb(data: bytes, name: str) -> bytes:
    """Returns an image as upright RGB, encoded as JPEG or PNG.

    A JPEG of three components that needs no rotation is returned byte for byte, once its pixels have been
    decoded to be sure that they are all there. Anything else (PNG, BMP, the first frame of a GIF or WebP,
    grayscale, palette, CMYK, 16 bits, transparency, EXIF rotation) is drawn onto white and encoded anew:

    - from a JPEG, or above `MAX_PNG_PIXELS`, as JPEG of quality 95 without chroma subsampling: as PNG, a
      photograph takes several times the bytes and the time to decode, and the loss is below what can be seen;
    - all else as PNG, which loses nothing: drawings and small images would show a JPEG's ringing.

    Pillow may warn of large images and of damaged metadata, which are passed over.

    Args:
        data: the bytes of an image file.
        name: what to call the file in an error.

    Raises:
        ImageError: if the bytes are none, no image of these formats, damaged or truncated, or if there are
            more than `MAX_PIXELS` pixels.
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
    except Exception as error:  # Damaged palettes and transparency show only now.
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
    except Exception as error:  # Decoders raise whatever broken headers lead them to.
        raise ImageError(f"{name}: the header is damaged ({error})") from None
    if image.width * image.height > MAX_PIXELS:
        raise ImageError(f"{name}: {image.width} x {image.height} pixels; expected at most {MAX_PIXELS:,}")
    try:
        image.load()
    except Exception as error:
        raise ImageError(f"{name}: the image is truncated or damaged ({error})") from None
    return image


def _orientation(image: Image.Image) -> int:
    """Returns the EXIF orientation; 1, upright, where the metadata do not tell or are damaged."""
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
    # Pillow clips 16-bit grayscale at 255 when it converts it.
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
