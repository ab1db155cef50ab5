"""One image of a layout, and what must hold of all of them together."""

from __future__ import annotations

import collections
import dataclasses
import os
import pathlib
from collections.abc import Iterable, Mapping, Sequence

TRAIN, TEST, QUERY, GALLERY = SPLITS = ("train", "test", "query", "gallery")

_EVALUATED = ({TEST}, {QUERY, GALLERY})


class LayoutError(ValueError):
    """A folder of images or its manifest is not as it must be; the message says where and why."""


@dataclasses.dataclass(frozen=True)
class Entry:
    """One image: its file relative to the source folder, with forward slashes, its class and its split."""

    file: str
    label: str
    split: str


def list_folder(folder: pathlib.Path) -> list[os.DirEntry]:
    """Returns what is in a folder, sorted by name, without hidden files and what archivers of macOS leave."""
    try:
        with os.scandir(folder) as found:
            kept = [entry for entry in found if not entry.name.startswith(".") and entry.name != "__MACOSX"]
    except OSError as error:
        raise LayoutError(f"{folder} cannot be read ({error.strerror})") from None
    for entry in kept:
        check_name(entry.name, f"{folder}")
    return sorted(kept, key=lambda entry: entry.name)


def check_name(name: str, where: str) -> None:
    """Checks that the name of a file or class can be stored as a line of text.

    Raises:
        LayoutError: if it has a line break or a NUL character, or is not Unicode.
    """
    try:
        name.encode()
    except UnicodeEncodeError:
        raise LayoutError(f"{where}: the name {name!r} is not in UTF-8") from None
    if "\n" in name or "\r" in name:
        raise LayoutError(f"{where}: the name {name!r} has a line break")
    if "\0" in name:
        raise LayoutError(f"{where}: the name {name!r} has a NUL character")


def check_splits(source: pathlib.Path, entries: Sequence[Entry]) -> None:
    """Checks that the splits make a retrieval task and that every class has the images it needs.

    - There is `train` and either `test` or both of `query` and `gallery`.
    - Two classes at least train, and every class of `train` and `test` has two images: one has no positive.
    - Every class of `query` has an image in `gallery`; classes of `gallery` without a query are distractors.

    A class may be in `train` and in an evaluated split (closed-set retrieval): a manifest can ask for it.

    Args:
        source: folder or manifest to name in errors.
        entries: all images.

    Raises:
        LayoutError: if any of this does not hold.
    """
    sizes = {split: collections.Counter(e.label for e in entries if e.split == split) for split in SPLITS}
    found = [split for split in SPLITS if sizes[split]]
    if TRAIN not in found or set(found) - {TRAIN} not in _EVALUATED:
        expected = "train and test, or train, query and gallery"
        raise LayoutError(f"{source} has the split(s) {', '.join(found) or 'none'}; expected {expected}")
    if len(sizes[TRAIN]) < 2:
        raise LayoutError(f"{source} has one training class, {_name(sizes[TRAIN])}; expected at least two")
    _check_class_sizes(source, sizes)
    unanswerable = set(sizes[QUERY]) - set(sizes[GALLERY])
    if unanswerable:
        raise LayoutError(f"{source}: query class {_name(unanswerable)} has no image in the gallery")


def _check_class_sizes(source: pathlib.Path, sizes: Mapping[str, Mapping[str, int]]) -> None:
    for split in (TRAIN, TEST):
        alone = [label for label, size in sizes[split].items() if size == 1]
        if alone:
            raise LayoutError(
                f"{source}: class {_name(alone)} has one image in {split}; expected at least two"
            )


def _name(labels: Iterable[str]) -> str:
    """Returns the first of some class names, and how many others there are."""
    first, *others = sorted(labels)
    return repr(first) + (f" (and {len(others)} more)" if others else "")
