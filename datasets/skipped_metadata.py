"""What a preparation left out, kept as metadata of the prepared data set."""

from __future__ import annotations

from typing import Any, Protocol

import tensorflow_datasets as tfds

from datasets import images

KEY = "skipped_images"
SUFFIX = "-without_bad_images"  # Of the name under which such a set is prepared.


class Source(Protocol):
    """An image of the source."""

    @property
    def file(self) -> str:
        """Its file."""

    @property
    def label(self) -> str:
        """Name of its class."""

    @property
    def split(self) -> str:
        """Its split."""


def new_metadata() -> tfds.core.MetadataDict:
    """Returns metadata of a set of which nothing has been left out."""
    return tfds.core.MetadataDict({KEY: []})


def note(metadata: dict[str, Any], image: Source, error: images.ImageError) -> None:
    """Adds an image that is left out, with the reason."""
    entry = {"file": image.file, "label": image.label, "split": image.split, "reason": str(error)}
    metadata[KEY].append(entry)
