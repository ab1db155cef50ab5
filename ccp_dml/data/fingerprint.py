"""A short text that tells one state of a data set from another."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable

import numpy as np

from ccp_dml.data.image_collection import ImageCollection

_RECORDS = 64


def fingerprint(collections: Iterable[ImageCollection | None]) -> str:
    """SHA-256, in hexadecimal, of all labels, class names and image ids, and of some of the images.

    Of each collection 64 evenly spaced encoded images are read, so that it costs a moment whatever the size:
    an image elsewhere that has changed, while number, order and labels have not, is not noticed.

    Args:
        collections: in a fixed order; None where there is none.
    """
    digest = hashlib.sha256()
    for collection in collections:
        if collection is None:
            digest.update(b"none")
            continue
        for numbers in (collection.labels, collection.image_ids):
            digest.update(np.ascontiguousarray(numbers, "<i8").tobytes())
        digest.update("\n".join(collection.class_names).encode())
        chosen = np.unique(np.linspace(0, len(collection) - 1, min(_RECORDS, len(collection))).astype(int))
        for encoded in collection.encoded(chosen):
            digest.update(encoded)
    return digest.hexdigest()
