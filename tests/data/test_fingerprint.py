from __future__ import annotations

from dataclasses import replace

import numpy as np

from ccp_dml.data.collection import ImageCollection, InMemoryRecords, fingerprint


def test_what_is_noticed(collection: ImageCollection) -> None:
    images = [b"changed", *collection.encoded(np.arange(1, len(collection)))]
    others = [
        [collection, None],
        [None, collection],
        [collection, collection],
        [replace(collection, class_names=tuple("abcdefx"))],
        [replace(collection, image_ids=collection.image_ids + 1)],
        [replace(collection, source=InMemoryRecords(images), rows=np.arange(len(images)))],
        [collection.subset(np.arange(len(collection) - 1))],
    ]
    found = [fingerprint([collection]), *(fingerprint(other) for other in others)]
    assert len(set(found)) == len(found)


def test_it_does_not_depend_on_where_the_records_are(collection: ImageCollection) -> None:
    images = collection.encoded(np.arange(len(collection)))
    moved = replace(collection, source=InMemoryRecords(images), rows=np.arange(len(images)))
    assert fingerprint([moved]) == fingerprint([collection])
