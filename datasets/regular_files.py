"""Reads files that somebody else named: never a pipe, a device or a folder."""

from __future__ import annotations

import errno
import os
import pathlib
import stat

MAX_SIZE = 2**29  # Bytes: as many as the largest image that TensorFlow decodes has, without compression.


def read_file(path: pathlib.Path) -> bytes:
    """Returns the bytes of a regular file: a pipe would keep a reader waiting, and a device never end.

    Raises:
        OSError: if it is none, has more than `MAX_SIZE` bytes, or cannot be read.
    """
    status = path.stat()
    if stat.S_ISDIR(status.st_mode):
        raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR))
    if not stat.S_ISREG(status.st_mode):
        raise OSError(errno.EINVAL, "no regular file")
    if status.st_size > MAX_SIZE:
        raise OSError(errno.EFBIG, f"{status.st_size:,} bytes; expected at most {MAX_SIZE:,}")
    return path.read_bytes()
