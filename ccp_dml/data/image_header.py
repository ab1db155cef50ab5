"""The size of an encoded image, as its header tells it."""

from __future__ import annotations

_PNG = b"\x89PNG\r\n\x1a\n"
_JPEG = b"\xff\xd8\xff"
_MARKER = 0xFF
# Markers of frames, in which the size is: C0 to CF without those of tables and the reserved one.
_FRAMES = frozenset(range(0xC0, 0xD0)) - {0xC4, 0xC8, 0xCC}


def image_size(encoded: bytes) -> tuple[int, int]:
    """Height and width of a JPEG or PNG image in pixels.

    Raises:
        ValueError: if it is neither, or its header is damaged.
    """
    if encoded.startswith(_PNG):
        if len(encoded) < 24:
            raise ValueError("the header of the PNG image is damaged")
        return int.from_bytes(encoded[20:24], "big"), int.from_bytes(encoded[16:20], "big")
    if not encoded.startswith(_JPEG):
        raise ValueError("neither a JPEG nor a PNG image")
    place = 2
    while place + 9 <= len(encoded) and encoded[place] == _MARKER:
        marker = encoded[place + 1]
        if marker == _MARKER:  # Markers may be preceded by any number of these.
            place += 1
            continue
        if marker in _FRAMES:
            height, width = encoded[place + 5 : place + 7], encoded[place + 7 : place + 9]
            return int.from_bytes(height, "big"), int.from_bytes(width, "big")
        place += 2 + int.from_bytes(encoded[place + 2 : place + 4], "big")
    raise ValueError("the header of the JPEG image is damaged")
