"""Whether a data set can be had as it is wanted."""

from __future__ import annotations

from collections.abc import Callable

from ccp_dml.data.catalog.entries import ENTRIES, Entry, names
from ccp_dml.data.catalog.source import Source
from ccp_dml.errors import UserError


def check(source: Source) -> int:
    """Finds out, without TensorFlow, whether `load` has what it needs.

    Returns:
        The number of training classes, those held out for validation included.

    Raises:
        UserError: if the name is unknown, an option is not for this data set, or the source is missing or has
            not the layout expected; the message says what to get and where to put it.
    """
    if source.name not in ENTRIES:
        raise UserError(f"--dataset={source.name} is unknown, expected one of: {', '.join(names())}")
    entry = ENTRIES[source.name]
    _check_options(source, entry)
    return entry.find(source)


def _check_options(source: Source, entry: Entry) -> None:
    """Every option is for this data set."""
    name = source.name
    if source.crop_to_box and not _has_boxes(entry):
        raise UserError(
            f"--crop_to_box: {name} has no bounding boxes; expected it with one of {_names_of(_has_boxes)}"
        )
    if not source.check_counts and "check_counts" not in entry.options:
        raise UserError(
            f"--check_counts=false: expected it with a published data set; found --dataset={name}"
        )
    if source.skip_bad_images and "skip_bad_images" not in entry.options:
        raise UserError(
            "--skip_bad_images: expected it with image_folder or a published data set; "
            f"found --dataset={name}"
        )
    if source.download and not _is_public(entry):
        advice = "" if entry.release is None else f"; {entry.release.advice('--data_dir')}"
        raise UserError(
            f"--download: {name} cannot be downloaded; expected it with one of "
            f"{_names_of(_is_public)}{advice}"
        )


def _has_boxes(entry: Entry) -> bool:
    return entry.release is not None and entry.release.has_boxes


def _is_public(entry: Entry) -> bool:
    """Whether the source may be downloaded without asking anybody."""
    return entry.release is not None and entry.release.download_url is not None


def _names_of(kind: Callable[[Entry], bool]) -> str:
    return ", ".join(name for name, entry in ENTRIES.items() if kind(entry))
