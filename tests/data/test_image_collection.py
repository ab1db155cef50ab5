from __future__ import annotations

import numpy as np
import pytest

from ccp_dml.data.collection import ImageCollection, ImageDataset, InMemoryRecords


def numbered() -> ImageCollection:
    records = InMemoryRecords([f"record {row}".encode() for row in range(12)])
    return ImageCollection(
        labels=np.array([0, 2, 1, 2, 0]),
        class_names=("x", "y", "z"),
        image_ids=np.array([10, 11, 12, 13, 14]),
        source=records,
        rows=np.array([6, 1, 8, 3, 11]),
    )


def test_images_are_read_by_index() -> None:
    images = numbered()
    assert (len(images), images.num_classes) == (5, 3)
    assert images.encoded([4, 0, 0]) == [b"record 11", b"record 6", b"record 6"]
    assert images.encoded(np.array([], int)) == []


def test_subset_keeps_classes() -> None:
    part = numbered().subset([3, 0])
    assert part.labels.tolist() == [2, 0]
    assert part.image_ids.tolist() == [13, 10]
    assert part.class_names == ("x", "y", "z")
    assert part.encoded([0, 1]) == [b"record 3", b"record 6"]


def test_by_classes_numbers_classes_anew() -> None:
    part = numbered().by_classes([2, 0])
    assert part.class_names == ("z", "x")
    assert part.labels.tolist() == [1, 0, 0, 1]
    assert part.image_ids.tolist() == [10, 11, 13, 14]
    assert part.encoded([1]) == [b"record 1"]


@pytest.mark.parametrize(
    ("classes", "message"), [([0, 0], "distinct"), ([3], "between 0 and 2"), ([-1], "between")]
)
def test_bad_classes(classes: list[int], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        numbered().by_classes(classes)


def test_inconsistent_arrays() -> None:
    with pytest.raises(ValueError, match=r"rows must have shape \(2,\), found \(1,\)"):
        ImageCollection(np.array([0, 0]), ("a",), np.array([0, 1]), InMemoryRecords([]), np.array([0]))
    with pytest.raises(ValueError, match="labels must be between 0 and 0, found 0 to 1"):
        ImageCollection(np.array([0, 1]), ("a",), np.array([0, 1]), InMemoryRecords([]), np.array([0, 1]))


@pytest.mark.parametrize("has_gallery", [False, True])
def test_every_collection_of_a_data_set_is_changed(has_gallery: bool) -> None:
    parts = [numbered().by_classes([label]) for label in range(3)]
    found = ImageDataset("numbers", *parts[: 2 + has_gallery]).map(lambda part: part.subset([0]))
    ids = [
        None if part is None else part.image_ids.tolist() for part in (found.train, found.test, found.gallery)
    ]
    assert ids == [[10], [12], [11] if has_gallery else None]
    assert found.name == "numbers"
