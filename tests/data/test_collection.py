"""Image collections: reading, choosing, joining and fingerprints."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from ccp_dml.data.collection import ImageCollection, ImageDataset, InMemoryRecords, fingerprint, join


def numbered() -> ImageCollection:
    """Five images, whose bytes name their record."""
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


def test_a_subset_keeps_its_classes() -> None:
    part = numbered().subset([3, 0])
    assert part.labels.tolist() == [2, 0]
    assert part.image_ids.tolist() == [13, 10]
    assert part.class_names == ("x", "y", "z")
    assert part.encoded([0, 1]) == [b"record 3", b"record 6"]


def test_chosen_classes_are_numbered_in_the_order_given() -> None:
    part = numbered().by_classes([2, 0])
    assert part.class_names == ("z", "x")
    assert part.labels.tolist() == [1, 0, 0, 1]
    assert part.image_ids.tolist() == [10, 11, 13, 14]
    assert part.encoded([1]) == [b"record 1"]


@pytest.mark.parametrize(
    ("classes", "message"), [([0, 0], "distinct"), ([3], "between 0 and 2"), ([-1], "between")]
)
def test_unknown_and_repeated_classes_are_refused(classes: list[int], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        numbered().by_classes(classes)


def test_inconsistent_arrays_are_refused() -> None:
    with pytest.raises(ValueError, match=r"rows must have shape \(2,\), found \(1,\)"):
        ImageCollection(np.array([0, 0]), ("a",), np.array([0, 1]), InMemoryRecords([]), np.array([0]))
    with pytest.raises(ValueError, match="labels must be between 0 and 0, found 0 to 1"):
        ImageCollection(np.array([0, 1]), ("a",), np.array([0, 1]), InMemoryRecords([]), np.array([0, 1]))
    with pytest.raises(ValueError, match=r"boxes must have shape \(5, 4\), found \(4, 4\)"):
        replace(numbered(), boxes=np.zeros((4, 4), np.int64))


@pytest.mark.parametrize("has_gallery", [False, True])
def test_a_function_is_applied_to_every_collection_of_a_data_set(has_gallery: bool) -> None:
    parts = [numbered().by_classes([label]) for label in range(3)]
    found = ImageDataset("numbers", *parts[: 2 + has_gallery]).map(lambda part: part.subset([0]))
    ids = [
        None if part is None else part.image_ids.tolist() for part in (found.train, found.test, found.gallery)
    ]
    assert ids == [[10], [12], [11] if has_gallery else None]
    assert found.name == "numbers"


def shuffled(classes: dict[str, int], prefix: str, first_id: int) -> ImageCollection:
    """The given number of images of each class, whose bytes are the prefix and their index."""
    labels = np.repeat(np.arange(len(classes)), list(classes.values()))
    records = [f"{prefix} {index}".encode() for index in range(len(labels))]
    rows = np.random.default_rng(first_id).permutation(len(labels))
    source = InMemoryRecords([records[index] for index in np.argsort(rows)])
    return ImageCollection(labels, tuple(classes), first_id + np.arange(len(labels)), source, rows)


def test_joined_collections_keep_their_images() -> None:
    images = join(
        [
            shuffled({"a": 2, "b": 3}, "train", 0),
            shuffled({"c": 1, "a": 2}, "test", 50),
            shuffled({"b": 2}, "gallery", 90),
        ]
    )
    assert images.class_names == ("a", "b", "c")
    assert images.labels.tolist() == [0, 0, 1, 1, 1, 2, 0, 0, 1, 1]
    assert images.image_ids.tolist() == [0, 1, 2, 3, 4, 50, 51, 52, 90, 91]
    names = [f"{name} {i}" for name, n in (("train", 5), ("test", 3), ("gallery", 2)) for i in range(n)]
    wanted = [9, 0, 6, 2, 0]
    assert images.encoded(wanted) == [names[index].encode() for index in wanted]
    assert images.encoded(np.array([], np.int64)) == []
    assert len(images.source) == 10


def test_boxes_are_joined_if_all_collections_have_them() -> None:
    def part(first: int, boxes: np.ndarray | None) -> ImageCollection:
        images = InMemoryRecords([b"a", b"b"])
        return ImageCollection(
            np.array([0, 0]), (f"class {first}",), first + np.arange(2), images, np.array([1, 0]), boxes
        )

    boxes = np.arange(16).reshape(4, 4)
    np.testing.assert_array_equal(join([part(0, boxes[:2]), part(2, boxes[2:])]).boxes, boxes)
    assert join([part(0, boxes[:2]), part(2, None)]).boxes is None


def test_the_fingerprint_changes_with_labels_names_ids_and_images(collection: ImageCollection) -> None:
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


def test_the_fingerprint_does_not_depend_on_the_order_of_records(collection: ImageCollection) -> None:
    images = collection.encoded(np.arange(len(collection)))
    moved = replace(collection, source=InMemoryRecords(images), rows=np.arange(len(images)))
    assert fingerprint([moved]) == fingerprint([collection])
