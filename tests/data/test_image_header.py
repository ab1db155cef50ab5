from __future__ import annotations

import io

import numpy as np
import pytest
from PIL import Image

from ccp_dml.data.pipeline import image_size

OPTIONS = {
    "plain": {},
    "progressive": {"progressive": True},
    "with metadata": {"exif": b"Exif\0\0" + b"\xff\xc0" * 200, "comment": b"\xff\xc0\x00\x11"},
    "with a color profile": {"icc_profile": b"\xff\xc2" * 40_000},
}


@pytest.mark.parametrize("name", OPTIONS)
@pytest.mark.parametrize("mode", ["RGB", "L"])
def test_size_of_a_jpeg(name: str, mode: str) -> None:
    encoded = io.BytesIO()
    Image.new(mode, (300, 17)).save(encoded, "jpeg", **OPTIONS[name])
    assert image_size(encoded.getvalue()) == (17, 300)
    # Fill bytes may precede a marker.
    assert image_size(encoded.getvalue()[:2] + b"\xff\xff" + encoded.getvalue()[2:]) == (17, 300)


def test_size_of_a_png() -> None:
    encoded = io.BytesIO()
    Image.fromarray(np.zeros((300, 17, 3), np.uint8)).save(encoded, "png")
    assert image_size(encoded.getvalue()) == (300, 17)


@pytest.mark.parametrize(
    ("encoded", "message"),
    [
        (b"", "neither"),
        (b"GIF89a" + bytes(20), "neither"),
        (b"\xff\xd8\xff", "damaged"),
        (b"\xff\xd8\xff\xe0\x00\x00" + bytes(40), "damaged"),
        (b"\x89PNG\r\n\x1a\n" + bytes(8), "damaged"),
    ],
)
def test_what_is_no_image(encoded: bytes, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        image_size(encoded)
