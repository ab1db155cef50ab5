"""Image files of all kinds as upright RGB images."""

from __future__ import annotations

import concurrent.futures
import io
import struct
import time
import zlib

import numpy as np
import pytest
import tensorflow as tf
from PIL import Image

from ccp_dml.data.images import image_size
from ccp_dml.datasets.common import images
from ccp_dml.datasets.common.images import MAX_PNG_PIXELS, ImageError, upright_rgb

pytestmark = pytest.mark.filterwarnings("ignore::UserWarning:PIL", "ignore::RuntimeWarning:PIL")

HEIGHT, WIDTH = 24, 40
ORIENTATION = 0x0112
# The transformation to an upright picture for each EXIF orientation, after the EXIF standard.
TO_UPRIGHT = {
    1: lambda a: a,
    2: lambda a: a[:, ::-1],
    3: lambda a: a[::-1, ::-1],
    4: lambda a: a[::-1],
    5: lambda a: a.transpose(1, 0, 2),
    6: lambda a: np.rot90(a, -1),
    7: lambda a: a[::-1, ::-1].transpose(1, 0, 2),
    8: lambda a: np.rot90(a, 1),
}


def smooth_rgb(height=HEIGHT, width=WIDTH):
    """A picture without symmetry that JPEG hardly changes."""
    y, x = np.mgrid[:height, :width]
    diagonal = (x + y) * 255 // (height + width - 2)
    return np.stack([x * 255 // (width - 1), y * 255 // (height - 1), diagonal], -1).astype(np.uint8)


def noisy(*shape):
    return np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8)


def encode(image, image_format, **options):
    output = io.BytesIO()
    (Image.fromarray(image) if isinstance(image, np.ndarray) else image).save(output, image_format, **options)
    return output.getvalue()


def decode(data):
    image = Image.open(io.BytesIO(data))
    assert image.mode == "RGB"
    assert image.format in ("JPEG", "PNG")
    return np.asarray(image)


def on_white(rgb, alpha):
    share = alpha[..., None] / 255
    return rgb * share + 255 * (1 - share)


def gray_to_rgb(gray):
    return np.repeat(gray[..., None], 3, -1)


def exif(orientation):
    tags = Image.Exif()
    tags[ORIENTATION] = orientation
    return tags


def png(color_type, bits, rows, *chunks):
    """A PNG made by hand, for what Pillow does not write."""
    height, width = len(rows), len(rows[0]) * 8 // bits // {0: 1, 2: 3, 4: 2, 6: 4}[color_type]
    header = struct.pack(">IIBBBBB", width, height, bits, color_type, 0, 0, 0)
    pixels = zlib.compress(b"".join(b"\0" + row for row in rows))
    parts = [(b"IHDR", header), *chunks, (b"IDAT", pixels), (b"IEND", b"")]
    body = (struct.pack(">I", len(d)) + k + d + struct.pack(">I", zlib.crc32(k + d)) for k, d in parts)
    return b"\x89PNG\r\n\x1a\n" + b"".join(body)


def rows_of_16_bits(array):
    return [row.astype(">u2").tobytes() for row in array]


def lossless_cases():
    rgb, alpha = noisy(HEIGHT, WIDTH, 3), noisy(HEIGHT, WIDTH)
    gray = noisy(HEIGHT, WIDTH)
    rgba = np.concatenate([rgb, alpha[..., None]], -1)
    gray_alpha = Image.merge("LA", [Image.fromarray(gray), Image.fromarray(alpha)])
    bilevel = noisy(HEIGHT, WIDTH) > 127
    deep = np.random.default_rng(1).integers(0, 2**16, (HEIGHT, WIDTH, 4))
    yield "png rgb", encode(rgb, "png"), rgb
    yield "png rgba", encode(rgba, "png"), on_white(rgb, alpha)
    yield "png gray", encode(gray, "png"), gray_to_rgb(gray)
    yield "png gray, alpha", encode(gray_alpha, "png"), on_white(gray_to_rgb(gray), alpha)
    yield "png 1 bit", encode(Image.fromarray(bilevel), "png"), gray_to_rgb(bilevel * 255)
    yield "bmp", encode(rgb, "bmp"), rgb
    yield "webp", encode(rgb, "webp", lossless=True), rgb
    yield "webp rgba", encode(rgba, "webp", lossless=True, exact=True), on_white(rgb, alpha)
    yield "png gray 16", png(0, 16, rows_of_16_bits(deep[..., 0])), gray_to_rgb(deep[..., 0] / 257)
    flat = deep[..., :3].reshape(HEIGHT, -1)
    yield "png rgb 16", png(2, 16, rows_of_16_bits(flat)), deep[..., :3] / 257
    flat = deep.reshape(HEIGHT, -1)
    yield "png rgba 16", png(6, 16, rows_of_16_bits(flat)), on_white(deep[..., :3] / 257, deep[..., 3] / 257)
    yield "png rotated", encode(rgb, "png", exif=exif(6)), np.rot90(rgb, -1)
    yield "webp rotated", encode(rgb, "webp", lossless=True, exif=exif(8)), np.rot90(rgb, 1)


def palette_cases():
    index = noisy(HEIGHT, WIDTH) % 16
    colors = noisy(16, 3)
    image = Image.fromarray(index, "P")
    image.putpalette(colors.tobytes())
    see_through = np.where((index == 3)[..., None], 255, colors[index])
    opacity = noisy(16)
    other = Image.fromarray((index + 1) % 16, "P")
    other.putpalette(colors.tobytes())
    yield "png palette", encode(image, "png"), colors[index]
    yield "png palette, one transparent", encode(image, "png", transparency=3), see_through
    yield (
        "png palette, alpha",
        encode(image, "png", transparency=opacity.tobytes()),
        on_white(colors[index], opacity[index]),
    )
    yield "bmp palette", encode(image, "bmp"), colors[index]
    yield "gif", encode(image, "gif"), colors[index]
    yield "gif transparent", encode(image, "gif", transparency=3), see_through
    yield "gif animated", encode(image, "gif", save_all=True, append_images=[other]), colors[index]
    one_color = {"transparency": int(index[0, 0])}
    expected = gray_to_rgb(np.where(index == index[0, 0], 255, index))
    yield "png gray, one transparent", encode(Image.fromarray(index), "png", **one_color), expected
    yield (
        "png gray 16, one transparent",
        png(0, 16, rows_of_16_bits(index * 257), (b"tRNS", struct.pack(">H", int(index[0, 0]) * 257))),
        expected,
    )


@pytest.mark.parametrize(
    "data, expected", [pytest.param(*case, id=name) for name, *case in [*lossless_cases(), *palette_cases()]]
)
def test_small_lossless_images_keep_their_pixels(data, expected):
    actual = upright_rgb(data, "image")
    assert actual.startswith(b"\x89PNG")
    np.testing.assert_allclose(
        decode(actual).astype(float), expected, atol=2
    )  # Rounding of alpha and 16 bits.


@pytest.mark.parametrize("orientation", TO_UPRIGHT)
def test_photographs_are_rotated_upright(orientation):
    stored = smooth_rgb()
    data = encode(stored, "jpeg", quality=98, exif=exif(orientation))
    actual = upright_rgb(data, "image")
    assert (actual == data) == (orientation == 1)
    expected = TO_UPRIGHT[orientation](stored)
    np.testing.assert_allclose(decode(actual).astype(float), expected, atol=8)


def cmyk_on_screen(array):
    ink = array.astype(float) / 255
    return 255 * (1 - ink[..., :3]) * (1 - ink[..., 3:])


def lossy_cases():
    rgb = smooth_rgb()
    cmyk = np.concatenate([rgb, smooth_rgb()[..., ::-1][..., :1] // 2], -1)
    image = Image.fromarray(cmyk, "CMYK")
    yield "jpeg cmyk", encode(image, "jpeg", quality=98), cmyk_on_screen(cmyk)
    yield "jpeg gray", encode(rgb[..., 0], "jpeg", quality=98), gray_to_rgb(rgb[..., 0])
    large = smooth_rgb(1025, 1024)
    yield "large png", encode(large, "png"), large


@pytest.mark.parametrize("data, expected", [pytest.param(*case, id=name) for name, *case in lossy_cases()])
def test_photographs_and_large_images_become_jpeg(data, expected):
    actual = upright_rgb(data, "image")
    assert actual.startswith(b"\xff\xd8")
    assert actual != data
    np.testing.assert_allclose(decode(actual).astype(float), expected, atol=8)


def test_the_largest_png_stays_png():
    side = int(MAX_PNG_PIXELS**0.5)
    assert upright_rgb(encode(np.zeros((side, side), np.uint8), "png"), "image").startswith(b"\x89PNG")


def test_images_too_long_for_jpeg_become_png():
    actual = upright_rgb(encode(np.zeros((17, 65_501), np.uint8), "png"), "image")
    assert decode(actual).shape == (17, 65_501, 3)


def plain_jpegs():
    rgb = smooth_rgb()
    yield "baseline", encode(rgb, "jpeg")
    yield "progressive", encode(rgb, "jpeg", progressive=True)
    yield "no chroma subsampling", encode(rgb, "jpeg", subsampling=0, quality=100)
    yield "upright by its EXIF", encode(rgb, "jpeg", exif=exif(1))
    yield "unknown orientation", encode(rgb, "jpeg", exif=exif(9))
    yield "damaged EXIF", encode(rgb, "jpeg", exif=b"Exif\0\0II*\0\xff\xff\xff\xff")
    yield "several pictures", encode(rgb, "mpo", save_all=True, append_images=[Image.fromarray(rgb[::-1])])
    yield "bytes after the end", encode(rgb, "jpeg") + b"\0" * 10


@pytest.mark.parametrize("data", [pytest.param(data, id=name) for name, data in plain_jpegs()])
def test_plain_jpegs_are_kept_byte_for_byte(data):
    assert upright_rgb(data, "image") == data


def test_tensorflow_decodes_stored_and_converted_images():
    inputs = [*plain_jpegs(), *((name, data) for name, data, _ in [*palette_cases(), *lossy_cases()])]
    for name, data in inputs:
        encoded = upright_rgb(data, name)
        seen = tf.io.decode_image(encoded, channels=3, expand_animations=False).numpy()
        # Decoders of JPEG differ in how they interpolate chroma.
        assert np.abs(seen.astype(float) - decode_first(encoded)).mean() < 2, name


def decode_first(data):
    return np.asarray(Image.open(io.BytesIO(data)).convert("RGB")).astype(float)


ENCODINGS = {
    "jpeg": {},
    "progressive jpeg": {"progressive": True},
    "png": {},
    "gif": {},
    "bmp": {},
    "webp": {},
    "lossless webp": {"lossless": True},
}


@pytest.mark.parametrize("share", [0.02, 0.3, 0.6, 0.95])
@pytest.mark.parametrize("encoding", ENCODINGS)
def test_the_error_names_a_truncated_image(encoding, share):
    data = encode(noisy(64, 64, 3), encoding.split()[-1], **ENCODINGS[encoding])
    with pytest.raises(ImageError, match=r"^some/name\.img: "):
        upright_rgb(data[: int(len(data) * share)], "some/name.img")


DAMAGED_JPEGS = {
    "color, half of it zeros": ({}, (64, 64, 3), 0.5, b"\0"),
    "color, a tenth of it zeros": ({}, (64, 64, 3), 0.9, b"\0"),
    "small": ({}, (40, 40, 3), 0.5, b"\0"),
    "optimized, other bytes": ({"optimize": True}, (100, 100, 3), 0.5, b"\x55"),
    "no chroma subsampling": ({"quality": 100, "subsampling": 0}, (24, 24, 3), 0.75, b"\x55"),
    "gray, which is drawn again": ({}, (40, 40), 0.5, b"\0"),
    "rotated, which is drawn again": ({"exif": exif(6)}, (64, 64, 3), 0.75, b"\0"),
}


@pytest.mark.parametrize("case", DAMAGED_JPEGS)
def test_a_jpeg_that_tensorflow_cannot_decode_is_refused(case):
    """Pillow fills what is missing with gray."""
    options, shape, share, filling = DAMAGED_JPEGS[case]
    data = encode(noisy(*shape), "jpeg", **options)
    kept = int(len(data) * share)
    damaged = data[:kept] + filling * (len(data) - kept)
    Image.open(io.BytesIO(damaged)).load()
    with pytest.raises(ImageError, match=r"^some/name\.img: the image is damaged \(TensorFlow cannot decode"):
        upright_rgb(damaged, "some/name.img")


STRAY_BYTES = {
    "zero": b"\0",
    "text": b"stray",
    "an escaped byte": b"\xff\0",
    "a restart marker": b"\xff\xd3",
    "fill bytes": b"\xff\xff\xff",
}


@pytest.mark.parametrize("progressive", [False, True])
@pytest.mark.parametrize("marker", [b"\xff\xdb", b"frame", b"\xff\xda"], ids=["table", "frame", "scan"])
@pytest.mark.parametrize("stray", STRAY_BYTES)
def test_stray_bytes_between_the_segments_of_a_jpeg(stray, marker, progressive):
    """Decoders skip them; the size of what is stored can be read by strict readers, too."""
    picture = encode(smooth_rgb(), "jpeg", quality=95, subsampling=0, progressive=progressive)
    frame = b"\xff\xc2" if progressive else b"\xff\xc0"
    place = picture.index(frame if marker == b"frame" else marker)
    data = picture[:place] + STRAY_BYTES[stray] + picture[place:]
    stored = upright_rgb(data, "image")
    assert image_size(stored) == (HEIGHT, WIDTH)
    decoded = tf.io.decode_jpeg(stored, channels=3, dct_method="INTEGER_ACCURATE").numpy()
    np.testing.assert_allclose(decoded.astype(float), smooth_rgb(), atol=8)


def test_threads_share_a_budget_of_decoded_bytes(monkeypatch):
    amounts, held, most = {"a": 3, "b": 4, "c": 99, "d": 6, "e": 1, "f": 10}, [], []
    budget = images._Budget(10)

    def hold(amount):
        with budget.take(amount):
            held.append(min(amount, 10))
            most.append(sum(held))
            time.sleep(0.01)
            held.remove(min(amount, 10))

    with concurrent.futures.ThreadPoolExecutor(6) as pool:
        list(pool.map(hold, [*amounts.values()] * 4))
    assert max(most) == 10
    with pytest.raises(ZeroDivisionError), budget.take(10):
        1 / 0  # noqa: B018
    with budget.take(10):
        pass


@pytest.mark.parametrize(
    ("data", "bytes_of_a_pixel"),
    [
        (encode(smooth_rgb(), "jpeg"), 8),
        (encode(smooth_rgb(), "jpeg", exif=exif(3)), 12),
        (encode(noisy(HEIGHT, WIDTH, 4), "png"), 12),
        (encode(noisy(HEIGHT, WIDTH, 3), "webp"), 12),
    ],
    ids=["plain", "rotated", "transparent", "webp"],
)
def test_conversion_takes_the_bytes_of_the_header_from_the_budget(data, bytes_of_a_pixel, monkeypatch):
    taken = []

    class Recorded(images._Budget):
        def take(self, amount):
            taken.append(amount)
            return super().take(amount)

    monkeypatch.setattr(images, "DECODED_BYTES", Recorded(10))
    upright_rgb(data, "image")
    with pytest.raises(ImageError):
        upright_rgb(data[:-30], "image")
    assert set(taken) == {bytes_of_a_pixel * HEIGHT * WIDTH}


def test_bands_do_not_show(monkeypatch):
    whole = [upright_rgb(data, name) for name, data, _ in [*lossless_cases(), *palette_cases()]]
    monkeypatch.setattr(images, "_PIXELS_OF_A_BAND", 7 * WIDTH)
    assert [upright_rgb(data, name) for name, data, _ in [*lossless_cases(), *palette_cases()]] == whole


def test_a_jpeg_without_end_marker_is_refused():
    with pytest.raises(ImageError, match="truncated"):
        upright_rgb(encode(smooth_rgb(), "jpeg")[:-2], "image")


@pytest.mark.parametrize(
    "data, reason",
    [
        (b"", "the file is empty"),
        (b"label,file\n", "not a JPEG, PNG, BMP, GIF or WebP"),
        (b"\0" * 1000, "not a JPEG, PNG, BMP, GIF or WebP"),
        (encode(np.zeros((4, 4), np.uint8), "tiff"), "not a JPEG, PNG, BMP, GIF or WebP"),
        (encode(np.zeros((4, 4), np.uint8), "ico"), "not a JPEG, PNG, BMP, GIF or WebP"),
        (png(0, 8, [b"\0" * 200_000])[:16] + struct.pack(">II", 20_000, 20_000), "header"),
    ],
    ids=["empty", "text", "zeros", "tiff", "ico", "header only"],
)
def test_the_error_names_a_file_that_is_not_an_image(data, reason):
    with pytest.raises(ValueError, match=reason) as error:
        upright_rgb(data, "the name")
    assert str(error.value).startswith("the name: ")


@pytest.mark.parametrize("side", [14_000, 20_000, 60_000])
def test_oversized_images_are_refused_before_decoding(side):
    row = b"\0" * 4
    header = struct.pack(">IIBBBBB", side, side, 1, 0, 0, 0, 0)
    small = png(0, 1, [row])
    body = b"IHDR" + header
    data = small[:12] + body + struct.pack(">I", zlib.crc32(body)) + small[33:]
    with pytest.raises(ImageError, match=r"^bomb: .*178,956,970"):
        upright_rgb(data, "bomb")
