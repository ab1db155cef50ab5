"""The images of a layout, and the checks of a list of them."""

from __future__ import annotations

import collections
import dataclasses
import pathlib
from collections.abc import Iterable, Sequence

TRAIN, VALIDATION, TEST, QUERY, GALLERY = SPLITS = ("train", "validation", "test", "query", "gallery")

_EVALUATED = ({TEST}, {QUERY, GALLERY})


class LayoutError(ValueError):
    """A folder of images or its manifest cannot be used; the message gives the place and the reason."""


@dataclasses.dataclass(frozen=True)
class Entry:
    """An image.

    Attributes:
        file: path relative to the source folder, with forward slashes.
        label: name of the class.
        split: one of `SPLITS`.
    """

    file: str
    label: str
    split: str


def check_name(name: str, where: str) -> None:
    """Checks that the name of a file or class can be stored as a line of text.

    Args:
        name: the name.
        where: place of the name for the error.

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


def check_splits(source: pathlib.Path, entries: Sequence[Entry], *, may_be_alone: bool = False) -> None:
    """Checks that images make up a retrieval task.

    - The splits are `train` and `test`, or `train`, `query` and `gallery`, and perhaps `validation`; or
      `train` or `test` alone, if that is wanted.
    - `train` and `validation` have at least two classes, and every class of `train`, `validation` and `test`
      has at least two images, since a single image has no positive.
    - No class of `validation` is in `train`.
    - Every class of `query` has an image in `gallery`. Other classes of `gallery` are distractors.

    A class may be in `train` and in an evaluated split (closed-set retrieval).

    Args:
        source: name of the folder or manifest for errors.
        entries: all images.
        may_be_alone: accept training or test images alone.

    Raises:
        LayoutError: if a condition does not hold.
    """
    sizes = {split: collections.Counter(e.label for e in entries if e.split == split) for split in SPLITS}
    found = [split for split in SPLITS if sizes[split]]
    is_alone = may_be_alone and found in ([TRAIN], [TEST])
    if not is_alone and (TRAIN not in found or set(found) - {TRAIN, VALIDATION} not in _EVALUATED):
        expected = "train and test, or train, query and gallery"
        raise LayoutError(f"{source} has the split(s) {', '.join(found) or 'none'}; expected {expected}")
    for split, kind in ((TRAIN, "training"), (VALIDATION, "validation")):
        if len(sizes[split]) == 1:
            raise LayoutError(f"{source} has one {kind} class, {_name(sizes[split])}; expected at least two")
    common = set(sizes[TRAIN]) & set(sizes[VALIDATION])
    if common:
        raise LayoutError(f"{source}: class {_name(common)} is in train and in validation; expected one")
    for split in (TRAIN, VALIDATION, TEST):
        single = [label for label, size in sizes[split].items() if size == 1]
        if single:
            raise LayoutError(
                f"{source}: class {_name(single)} has one image in {split}; expected at least two"
            )
    unanswerable = set(sizes[QUERY]) - set(sizes[GALLERY])
    if unanswerable:
        raise LayoutError(f"{source}: query class {_name(unanswerable)} has no image in the gallery")


def _name(labels: Iterable[str]) -> str:
    """Returns the first of several class names, and the number of the others."""
    first, *others = sorted(labels)
    return repr(first) + (f" (and {len(others)} more)" if others else "")
