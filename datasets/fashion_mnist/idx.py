"""The idx format: arrays of numbers behind a short header, as the MNIST files hold them."""

from __future__ import annotations

import gzip
import math
import pathlib
import struct
import zlib

import numpy as np
import numpy.typing as npt

_UNSIGNED_BYTE = 0x08
_MAGIC_SIZE = 4


class IdxError(ValueError):
    """A file is not what it should be; the message names the file and says why."""


def read(path: pathlib.Path, dimensions: int) -> npt.NDArray[np.uint8]:
    """Reads a gzipped idx file of unsigned bytes.

    The format: two zero bytes, the code of the number type, the number of dimensions, the size of each
    dimension as a big-endian 32-bit integer, and the numbers, the last dimension varying fastest.

    Args:
        path: the file.
        dimensions: number of dimensions that is expected.

    Returns:
        uint8 array of that many dimensions.

    Raises:
        IdxError: if the file is no gzipped idx file of unsigned bytes and of these dimensions, or is
            truncated.
    """
    try:
        data = gzip.decompress(path.read_bytes())
    except (gzip.BadGzipFile, EOFError, zlib.error) as error:
        raise IdxError(f"{path}: not a gzip file, or a damaged one ({error})") from None
    header = _MAGIC_SIZE + 4 * dimensions
    expected = bytes((0, 0, _UNSIGNED_BYTE, dimensions))
    if len(data) < header or data[:_MAGIC_SIZE] != expected:
        raise IdxError(
            f"{path}: begins with {data[:_MAGIC_SIZE].hex(' ')}; expected {expected.hex(' ')}, "
            f"an idx file of unsigned bytes in {dimensions} dimensions"
        )
    shape = struct.unpack(f">{dimensions}I", data[_MAGIC_SIZE:header])
    if len(data) - header != math.prod(shape):
        raise IdxError(
            f"{path}: holds {len(data) - header} numbers; expected {math.prod(shape)} = "
            + " x ".join(str(size) for size in shape)
        )
    return np.frombuffer(data, np.uint8, offset=header).reshape(shape)
