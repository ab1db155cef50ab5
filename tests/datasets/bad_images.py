"""Unusual, damaged and fake image files, made on demand."""

from __future__ import annotations

import io
import os
import struct
import zlib
from collections.abc import Callable
from pathlib import Path

import numpy as np
from PIL import Image

ORIENTATION = 0x0112
Image_ = Image.Image


def picture(width: int = 40, height: int = 24, seed: int = 0) -> Image_:
    """A bright picture without black pixels."""
    noise = np.random.default_rng(seed).integers(100, 256, (height, width, 3), dtype=np.uint8)
    return Image.fromarray(noise)


def encode(image: Image_, file_format: str, **options) -> bytes:
    output = io.BytesIO()
    image.save(output, file_format, **options)
    return output.getvalue()


def bomb(side: int = 60_000) -> bytes:
    """A PNG of a few bytes whose header claims side x side pixels."""

    def chunk(kind: bytes, content: bytes) -> bytes:
        checksum = zlib.crc32(kind + content)
        return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", checksum)

    header = struct.pack(">IIBBBBB", side, side, 8, 0, 0, 0, 0)
    data = zlib.compress(b"\0" * 1000)
    parts = chunk(b"IHDR", header) + chunk(b"IDAT", data) + chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + parts


def _exif(orientation: int) -> Image.Exif:
    tags = Image.Exif()
    tags[ORIENTATION] = orientation
    return tags


def _palette_with_alpha() -> bytes:
    image = picture().quantize(16)
    return encode(image, "PNG", transparency=bytes(range(0, 256, 16)))


def _16_bits() -> bytes:
    gray = np.random.default_rng(0).integers(20_000, 2**16, (24, 40), dtype=np.uint16)
    return encode(Image.fromarray(gray), "PNG")


def usable() -> dict[str, bytes]:
    """Unusual but valid image files by name."""
    other = picture(seed=1)
    return {
        "png_named.jpg": encode(picture(), "PNG"),
        "one_pixel.png": encode(picture(1, 1), "PNG"),
        "30000_wide.jpg": encode(picture(30_000, 2), "JPEG"),
        "cmyk.jpg": encode(picture().convert("CMYK"), "JPEG"),
        "16_bits.png": _16_bits(),
        "palette_alpha.png": _palette_with_alpha(),
        "animated.gif": encode(picture().quantize(16), "GIF", save_all=True, append_images=[other]),
        "rotated.jpg": encode(picture(), "JPEG", exif=_exif(6)),
        "broken_exif.jpg": encode(picture(), "JPEG", exif=b"Exif\0\0II*\0\xff\xff\xff\xff"),
        "plain.jpg": encode(picture(), "JPEG"),
        "stray_byte.jpg": encode(picture(), "JPEG").replace(b"\xff\xc0", b"\0\xff\xc0", 1),
        "plain.webp": encode(picture(), "WEBP"),
        "plain.bmp": encode(picture(), "BMP"),
    }


def unusable() -> dict[str, tuple[Callable[[Path], object], str]]:
    """Writers of unusable image files by name, with the reason that the error must give."""
    jpeg, png = encode(picture(), "JPEG"), encode(picture(), "PNG")

    def content(data: bytes) -> Callable[[Path], object]:
        return lambda path: path.write_bytes(data)

    return {
        "truncated.jpg": (content(jpeg[: len(jpeg) // 2]), "damaged"),
        "truncated.png": (content(png[: len(png) // 2]), "damaged"),
        "half_zeros.jpg": (content(jpeg[: len(jpeg) // 2] + bytes(len(jpeg) // 2)), "damaged"),
        "header_only.png": (content(png[:20]), "damaged"),
        "empty.jpg": (content(b""), "the file is empty"),
        "text.jpg": (content(b"file,label,split\n"), "not a JPEG, PNG, BMP, GIF or WebP image"),
        "bomb.png": (content(bomb()), "178,956,970"),
        "folder.jpg": (Path.mkdir, "Is a directory"),
        "link_to_nothing.jpg": (lambda path: path.symlink_to("nowhere"), "No such file or directory"),
        "link_to_itself.jpg": (lambda path: path.symlink_to(path), "symbolic links"),
        "pipe.jpg": (os.mkfifo, "no regular file"),
        "device.jpg": (lambda path: path.symlink_to("/dev/zero"), "no regular file"),
    }
