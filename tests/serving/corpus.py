"""Image files of all formats, depths, transparencies, orientations and sizes, with odd containers."""

from __future__ import annotations

import io
import struct
import zlib
from collections.abc import Iterator

import numpy as np
from PIL import Image

ORIENTATION = 0x0112
SIZES = ((9, 7), (1, 1), (1, 13), (16, 1), (24, 40))
_CHANNELS = {0: 1, 2: 3, 3: 1, 4: 2, 6: 4}
_DEPTHS = {0: (1, 2, 4, 8, 16), 2: (8, 16), 3: (1, 2, 4, 8), 4: (8, 16), 6: (8, 16)}
_NAMES = {0: "gray", 2: "rgb", 3: "palette", 4: "gray+alpha", 6: "rgba"}
# Top, step down, left and step to the right of the pixels of each pass.
_ADAM7 = ((0, 8, 0, 8), (0, 8, 4, 8), (4, 8, 0, 4), (0, 4, 2, 4), (2, 4, 0, 2), (0, 2, 1, 2), (1, 2, 0, 1))
_XMP = b'<x:xmpmeta xmlns:tiff="t" tiff:Orientation="%d">\n\xc3\xbc</x:xmpmeta>'


def encode(image: Image.Image, file_format: str, **options) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, file_format, **options)
    return buffer.getvalue()


def picture(mode: str = "RGB", height: int = 24, width: int = 40) -> Image.Image:
    """A smooth picture without symmetry, which JPEG hardly changes."""
    y, x = np.mgrid[:height, :width]
    channels = [
        x * 255 // width,
        y * 255 // height,
        (x + y) * 255 // (height + width),
        255 - x * 255 // width,
    ]
    image = Image.fromarray(np.stack(channels, -1).astype(np.uint8), "RGBA")
    return image.convert(mode) if mode.endswith("A") else image.convert("RGB").convert(mode)


def noise(mode: str, height: int = 24, width: int = 40) -> Image.Image:
    pixels = np.random.default_rng(height).integers(0, 256, (height, width, 4), dtype=np.uint8)
    return Image.fromarray(pixels, "RGBA").convert("RGB" if mode == "P" else mode).convert(mode)


def chunk(kind: bytes, content: bytes) -> bytes:
    checksum = zlib.crc32(kind + content)
    return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", checksum)


def png(color: int, bits: int, size: tuple[int, int] = SIZES[0], *, before: bytes = b"", after: bytes = b"",
        transparent: str = "none", interlaced: bool = False) -> bytes:  # fmt: skip
    """A PNG of random values made by hand, with chunks before and after the image data."""
    random = np.random.default_rng(bits)
    values = random.integers(0, 1 << bits, (*size, _CHANNELS[color]))
    header = struct.pack(">IIBBBBB", size[1], size[0], bits, color, 0, 0, interlaced)
    palette, rows = random.integers(0, 256, 3 << bits).astype(np.uint8).tobytes(), b""
    for part in [values[y::dy, x::dx] for y, dy, x, dx in _ADAM7] if interlaced else [values]:
        for row in part if part.size else ():
            digits = "".join(format(int(value), f"0{bits}b") for value in row.ravel())
            digits += "0" * (-len(digits) % 8)
            rows += b"\0" + int(digits, 2).to_bytes(len(digits) // 8, "big")
    alphas = {
        "none": b"",
        "all colours": random.integers(0, 256, 1 << min(bits, 8)).astype(np.uint8).tobytes(),
        "one index": b"\xff" * int(values[0, 0, 0]) + b"\0",
        "one colour": values[0, 0].astype(">u2").tobytes(),
    }
    return b"".join(
        (
            b"\x89PNG\r\n\x1a\n",
            chunk(b"IHDR", header),
            chunk(b"PLTE", palette) if color == 3 else b"",
            chunk(b"tRNS", alphas[transparent]) if transparent != "none" else b"",
            before,
            chunk(b"IDAT", zlib.compress(rows)),
            after,
            chunk(b"IEND", b""),
        )
    )


def tiff(value: int, *, order: str = "<", kind: str = "H", count: int = 1, more: bytes = b"") -> bytes:
    """EXIF data with an orientation."""
    code = {"B": 1, "s": 2, "H": 3, "L": 4, "h": 8}[kind]
    entry = struct.pack(f"{order}HHL", ORIENTATION, code, count)
    entry += (str(value).encode() if kind == "s" else struct.pack(order + kind, value)).ljust(4, b"\0")
    head = (b"II*\0" if order == "<" else b"MM\0*") + struct.pack(f"{order}L", 8)
    return head + struct.pack(f"{order}H", 1 + len(more) // 12) + more + entry + bytes(4)


def segment(marker: int, content: bytes) -> bytes:
    return struct.pack(">BBH", 0xFF, marker, len(content) + 2) + content


def exif_segment(data: bytes) -> bytes:
    return segment(0xE1, b"Exif\0\0" + data)


def xmp_segment(orientation: int) -> bytes:
    return segment(0xE1, b"http://ns.adobe.com/xap/1.0/\0" + _XMP % orientation)


def jpeg(*extra: bytes, before: bytes = b"\xff\xe0", mode: str = "RGB", **options) -> bytes:
    """A JPEG with bytes before the first of a kind of marker."""
    return encode(picture(mode), "JPEG", quality=98, **options).replace(before, b"".join(extra) + before, 1)


def gif(*, place: tuple[int, int] = (0, 0), screen: tuple[int, int] | None = None, table: str = "common",
        transparent: int | None = None, blocks: bytes = b"", interlaced: bool = False) -> bytes:  # fmt: skip
    """A GIF of 6 x 5 pixels with 16 colours in uncompressed codes, made by hand."""
    random = np.random.default_rng(3)
    indices, colors = random.integers(0, 16, 30), random.integers(0, 256, 48).astype(np.uint8).tobytes()
    codes = "".join(format(code, "05b")[::-1] for value in indices for code in (16, int(value)))
    codes += format(17, "05b")[::-1]
    data = bytes(int(codes[i : i + 8][::-1], 2) for i in range(0, len(codes), 8))
    control = b"" if transparent is None else b"!\xf9\x04\x01\0\0" + bytes([transparent, 0])
    height, width = screen or (6, 5)
    descriptor = struct.pack(
        "<BHHHHB", 0x2C, *place[::-1], 5, 6, (0x83 if table == "own" else 0) | 64 * interlaced
    )
    return b"".join(
        (
            b"GIF89a" + struct.pack("<HHBBB", width, height, 0x83 if table == "common" else 0, 2, 0),
            colors if table == "common" else b"",
            blocks + control + descriptor,
            colors if table == "own" else b"",
            b"\x04" + bytes([20]) + data[:20] + bytes([len(data) - 20]) + data[20:] + b"\0;",
        )
    )


def png_files() -> Iterator[tuple[str, bytes]]:
    for color, depths in _DEPTHS.items():
        for bits in depths:
            kinds = {0: ("one colour",), 2: ("one colour",), 3: ("one index", "all colours")}.get(color, ())
            for transparent in ("none", *kinds):
                name = f"png, {_NAMES[color]}, {bits} bits, transparent: {transparent}"
                yield name, png(color, bits, transparent=transparent)
    for size in SIZES:
        yield f"png, palette, 2 bits, {size}", png(3, 2, size)
        yield f"png, rgba, {size}", encode(noise("RGBA", *size), "PNG")
        for color, bits in ((0, 2), (3, 4), (6, 8), (0, 16)):
            yield f"png, {_NAMES[color]}, interlaced, {size}", png(color, bits, size, interlaced=True)
    yield "png, profile and gamma", encode(noise("RGB"), "PNG", icc_profile=bytes(300_000), dpi=(72, 72))
    yield "png, gray above the size of a copy", encode(picture("L", 1025, 1024), "PNG")


def oriented_files() -> Iterator[tuple[str, bytes]]:
    for value in range(10):
        yield f"png, eXIf {value}", png(2, 8, before=chunk(b"eXIf", tiff(value)))
        yield f"jpeg, EXIF {value}", jpeg(exif_segment(tiff(value, order=">")))
    text, zeros = b"XML:com.adobe.xmp\0\0\0\0\0", bytes(600_000)
    for name, chunks in {
        "signature in the chunk": {"before": chunk(b"eXIf", b"Exif\0\0" + tiff(6))},
        "after the image": {"after": chunk(b"eXIf", tiff(6, order=">"))},
        "after a large chunk": {"before": chunk(b"tEXt", b"a\0" + zeros) + chunk(b"eXIf", tiff(8))},
        "XMP": {"before": chunk(b"iTXt", text + _XMP % 5)},
        "XMP against EXIF": {"before": chunk(b"iTXt", text + _XMP % 5) + chunk(b"eXIf", tiff(3))},
    }.items():
        yield f"png, orientation, {name}", png(6, 8, **chunks)
    maker = struct.pack("<HHLL", 0x010F, 2, 4, 0) + struct.pack("<HHLL", ORIENTATION, 3, 1, 8)
    for name, extra in {
        "long": exif_segment(tiff(6, kind="L")),
        "long, big endian": exif_segment(tiff(6, kind="L", order=">")),
        "byte": exif_segment(tiff(6, kind="B")),
        "signed": exif_segment(tiff(6, kind="h")),
        "text": exif_segment(tiff(6, kind="s")),
        "three values": exif_segment(tiff(6, count=3)),
        "two values": exif_segment(tiff(6, count=2)),
        "given twice": exif_segment(tiff(6, more=maker)),
        "no TIFF": exif_segment(b"II+\0" + tiff(6)[4:]),
        "no directory": exif_segment(b"II*\0\xff\xff\xff\xff" + tiff(6)[8:]),
        "after other metadata": segment(0xE2, b"ICC_PROFILE\0" + bytes(65_000)) * 9 + exif_segment(tiff(6)),
        "two segments": exif_segment(tiff(6)) + exif_segment(tiff(3)),
        "XMP": xmp_segment(7),
        "XMP against EXIF": xmp_segment(7) + exif_segment(tiff(3)),
        "XMP beside unknown EXIF": exif_segment(tiff(9)) + xmp_segment(7),
        "marker without a segment": b"\xff\xd0" + exif_segment(tiff(6)),
    }.items():
        yield f"jpeg, orientation, {name}", jpeg(extra)
    for before in (b"\xff\xdb", b"\xff\xc0", b"\xff\xc4", b"\xff\xda"):
        yield f"jpeg, EXIF before {before.hex()}", jpeg(exif_segment(tiff(6)), before=before)


def jpeg_files() -> Iterator[tuple[str, bytes]]:
    for mode in ("L", "RGB", "CMYK"):
        for options in ({}, {"progressive": True}, {"subsampling": 2}, {"icc_profile": bytes(200_000)}):
            yield f"jpeg, {mode}, {[*options]}", jpeg(mode=mode, **options)
    adobe = segment(0xEE, b"Adobe\0\x64\0\0\0\0\0")
    yield "jpeg, CMYK without a mark", jpeg(mode="CMYK").replace(adobe, b"")
    for size in SIZES:
        yield f"jpeg, {size}", encode(picture("RGB", *size), "JPEG")
    for stray in (b"\xff\xff\xff", b"\0", b"\x12\xff\0", bytes(200)):
        yield f"jpeg, stray {len(stray)} bytes", jpeg(stray, exif_segment(tiff(6)), before=b"\xff\xdb")
    yield "jpeg, several pictures", encode(picture(), "MPO", save_all=True, append_images=[picture("L")])
    yield "jpeg, bytes after the end", jpeg() + bytes(999)


def gif_files() -> Iterator[tuple[str, bytes]]:
    for mode in ("1", "L", "P", "RGBA"):
        other = noise("P", 24, 41).crop((0, 0, 40, 24))
        yield f"gif, {mode}", encode(noise(mode), "GIF")
        yield f"gif, {mode}, frames", encode(noise(mode), "GIF", save_all=True, append_images=[other] * 3)
    for mode in ("L", "P"):
        yield f"gif, {mode}, transparent", encode(noise(mode), "GIF", transparency=3)
    comment = b"!\xfe\x03a,;\x02!\xf9\0" + b"!\xff\x0bNETSCAPE2.0\x03\x01\0\0\0"
    for table in ("common", "own", "none"):
        for transparent in (None, 0, 5):
            yield f"gif, table {table}, transparent {transparent}", gif(table=table, transparent=transparent)
    for transparent in (None, 5):
        yield f"gif, place, {transparent}", gif(place=(2, 3), screen=(12, 9), transparent=transparent)
        yield (
            f"gif, beyond the screen, {transparent}",
            gif(place=(3, 1), screen=(7, 2), transparent=transparent),
        )
    yield "gif, colour outside of the table", gif(transparent=200)
    yield "gif, interlaced", gif(interlaced=True, transparent=1)
    yield "gif, other blocks", gif(blocks=comment, transparent=4)
    yield "gif, long", encode(noise("P", 200, 300), "GIF", transparency=7)


def refused_files() -> Iterator[tuple[str, bytes]]:
    for file_format in ("BMP", "WEBP", "TIFF", "PPM"):
        yield file_format, encode(picture(), file_format)
    yield "empty", b""
    yield "text", b"no image"
    for name, content in (
        ("jpeg", jpeg()),
        ("png", png(2, 8)),
        ("gif", gif()),
        ("gif in blocks", gif()[:-9]),
    ):
        yield f"truncated {name}", content[: len(content) * 3 // 4]


def files_of_many_parts(most: int) -> Iterator[tuple[str, bytes]]:
    """Files of more than `most` segments, chunks or blocks, which say nothing."""
    yield "jpeg", jpeg(b"\xff\xfe\0\2" * (most + 1))
    yield "png", png(2, 8, before=chunk(b"teXt", b"") * (most + 1))
    yield "gif, extensions", gif(blocks=b"!\xfe\0" * (most + 1))
    yield "gif, blocks", gif(blocks=b"!\xfe" + b"\1a\2ab" * most + b"\0")
    yield "gif, blocks of the image", gif()[:-2] + b"\1a\2ab" * most + b"\0;"


def large_files(most: int) -> Iterator[tuple[str, bytes]]:
    """Files of few bytes whose headers claim more than `most` pixels."""
    side = int(most**0.5) + 1
    for height, width in ((side, side), (1, most + 1), (2**31 - 1, 2**31 - 1)):
        header = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 1, 0, 0, 0, 0))
        yield f"png, {height} x {width}", b"\x89PNG\r\n\x1a\n" + header + png(0, 1)[33:]
    size = struct.pack(">HH", 24, 40)
    yield "jpeg", jpeg().replace(size, struct.pack(">HH", side, side), 1)
    yield (
        "jpeg after a small thumbnail",
        jpeg(segment(0xE1, jpeg())).replace(size, struct.pack(">HH", side, side)),
    )
    yield "gif", gif(screen=(side, side))
    yield "gif by its frame", gif(place=(side, side), transparent=1)
