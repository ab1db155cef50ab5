"""Files that are whole on the disk or not there, also when the machine itself stops."""

from __future__ import annotations

import os
from pathlib import Path

from ccp_dml import faults

_PARTIAL = ".partial"


def partial(file: Path) -> Path:
    """The name that a file has while it is being written."""
    return file.with_name(file.name + _PARTIAL)


def write_text(file: Path, text: str) -> None:
    """Writes a file in UTF-8 to another name and renames it once it is on the disk.

    Raises:
        OSError: the folder cannot be written to; the file is as it was.
    """
    unfinished = partial(file)
    with unfinished.open("w", encoding="utf-8", newline="") as stream:
        stream.write(text)
        stream.flush()
        os.fsync(stream.fileno())
    faults.passage(file.name)
    os.replace(unfinished, file)
    _sync(file.parent)


def to_disk(folder: Path) -> None:
    """Waits until all files below a folder have reached the disk: a rename must not overtake them."""
    for path in folder.rglob("*"):
        _sync(path)
    _sync(folder)


def rename(unfinished: Path, name: Path) -> None:
    """Gives a folder whose files are on the disk its name, and waits until that is there, too."""
    unfinished.rename(name)
    _sync(name.parent)


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
