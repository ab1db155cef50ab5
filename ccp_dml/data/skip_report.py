"""Images that a preparation left out, and what that did to the classes."""

from __future__ import annotations

import collections
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

_MAX_NAMED = 20


@dataclass(frozen=True)
class SkippedImage:
    """An image of the source that cannot be used: its file, class and split, and what is wrong with it."""

    file: str
    label: str
    split: str
    reason: str


def from_metadata(metadata: Mapping[str, Any] | None) -> tuple[SkippedImage, ...]:
    """What the metadata of a prepared data set note; nothing where it was prepared whole."""
    return tuple(SkippedImage(**entry) for entry in (metadata or {}).get("skipped_images", ()))


def in_words(skipped: Sequence[SkippedImage], kept: Mapping[str, Mapping[str, int]]) -> str:
    """How many images were left out, and which classes shrank, are left with one image or vanished.

    Args:
        skipped: at least one image.
        kept: for each split the number of images that are left of each class; absent classes have none.
    """
    lost = collections.Counter((image.split, image.label) for image in skipped)
    left = {key: kept.get(key[0], {}).get(key[1], 0) for key in lost}
    total = len(skipped) + sum(sum(classes.values()) for classes in kept.values())
    shrunk = [f"{_name(*key)} to {left[key]:,} of {left[key] + lost[key]:,}" for key in lost if left[key] > 1]
    single = [_name(*key) for key in lost if left[key] == 1]
    vanished = [_name(*key) for key in lost if left[key] == 0]
    parts = [f"{len(skipped):,} of {total:,} images cannot be used and are left out"]
    if shrunk:
        parts.append(f"these classes shrank: {_listed(shrunk, _MAX_NAMED)}")
    if single:
        parts.append(f"these have one image left, less than the two that make a pair: {_listed(single)}")
    if vanished:
        parts.append(f"these vanished: {_listed(vanished)}")
    return "; ".join(parts)


def _name(split: str, label: str) -> str:
    return f"{label!r} ({split})"


def _listed(names: Iterable[str], most: int | None = None) -> str:
    names = list(names)
    more = 0 if most is None else max(0, len(names) - most)
    return ", ".join(names[: len(names) - more]) + (f" and {more:,} more" if more else "")
