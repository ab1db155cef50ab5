from __future__ import annotations

from collections import defaultdict

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ccp_dml.data.collection import ImageCollection, ImageDataset, InMemoryRecords
from ccp_dml.data.splits import closed_set, join, split_images

quick = settings(max_examples=40, deadline=None, derandomize=True)


def collection(classes: dict[str, int], prefix: str, first_id: int) -> ImageCollection:
    """So many images of each class, whose records say what they are; rows differ from indices."""
    labels = np.repeat(np.arange(len(classes)), list(classes.values()))
    records = [f"{prefix} {index}".encode() for index in range(len(labels))]
    rows = np.random.default_rng(first_id).permutation(len(labels))
    source = InMemoryRecords([records[index] for index in np.argsort(rows)])
    return ImageCollection(labels, tuple(classes), first_id + np.arange(len(labels)), source, rows)


@quick
@given(labels=st.lists(st.integers(0, 4), max_size=120).map(lambda more: np.array([0, 1, 2, 3, 4, *more])))
def test_shares_of_every_class_in_the_order_given(labels: np.ndarray) -> None:
    by_class = defaultdict(list)
    for index, label in enumerate(labels.tolist()):
        by_class[label].append(index)
    expected: tuple[list[int], list[int], list[int]] = ([], [], [])
    for images in by_class.values():
        num_train, num_test = round(0.65 * len(images)), round(0.2 * len(images))
        expected[0].extend(images[:num_train])
        expected[1].extend(images[num_train : len(images) - num_test])
        expected[2].extend(images[len(images) - num_test :])
    assert [part.tolist() for part in split_images(labels)] == [sorted(part) for part in expected]


@quick
@given(
    sizes=st.lists(st.integers(1, 40), min_size=1, max_size=6),
    keys=st.randoms(use_true_random=False),
)
def test_parts_share_nothing_and_miss_nothing(sizes: list[int], keys: object) -> None:
    labels = np.repeat(np.arange(len(sizes)), sizes)
    order = np.random.default_rng(keys.randrange(99)).permutation(len(labels))
    parts = split_images(labels, order.astype(np.uint64))
    assert sorted(np.concatenate(parts).tolist()) == list(range(len(labels)))
    assert set(labels[parts[0]].tolist()) == set(range(len(sizes)))
    # In the order of the keys, a class trains first, validates next and tests last.
    for label in range(len(sizes)):
        places = [order[part][labels[part] == label] for part in parts]
        assert np.array_equal(
            np.sort(np.concatenate(places)), np.concatenate([np.sort(place) for place in places])
        )


@pytest.mark.parametrize(
    ("size", "expected"), [(1, (1, 0, 0)), (2, (1, 1, 0)), (3, (2, 0, 1)), (4, (3, 0, 1)), (5, (3, 1, 1))]
)
def test_classes_of_few_images(size: int, expected: tuple[int, int, int]) -> None:
    assert tuple(len(part) for part in split_images(np.zeros(size, np.int64))) == expected


def test_classes_of_ten_images_have_pairs_in_every_part() -> None:
    for size in range(10, 200):
        assert min(len(part) for part in split_images(np.zeros(size, np.int64))) >= 2


def test_joined_collections_keep_their_images() -> None:
    parts = [
        collection({"a": 2, "b": 3}, "train", 0),
        collection({"c": 1, "a": 2}, "test", 50),
        collection({"b": 2}, "gallery", 90),
    ]
    images = join(parts)
    assert images.class_names == ("a", "b", "c")
    assert images.labels.tolist() == [0, 0, 1, 1, 1, 2, 0, 0, 1, 1]
    assert images.image_ids.tolist() == [0, 1, 2, 3, 4, 50, 51, 52, 90, 91]
    names = [f"{name} {i}" for name, n in (("train", 5), ("test", 3), ("gallery", 2)) for i in range(n)]
    wanted = [9, 0, 6, 2, 0]
    assert images.encoded(wanted) == [names[index].encode() for index in wanted]
    assert images.encoded(np.array([], np.int64)) == []
    assert len(images.source) == 10


def dataset() -> ImageDataset:
    train = collection({"a": 20, "b": 11}, "train", 0)
    test, gallery = collection({"c": 10, "d": 1}, "query", 100), collection({"c": 5, "d": 0}, "gallery", 200)
    return ImageDataset("some", train, test, gallery)


def test_a_closed_set_shares_its_classes() -> None:
    train, validation, test = closed_set(dataset(), seed=0)
    assert train.class_names == validation.class_names == test.class_names == ("a", "b", "c", "d")
    sizes = [np.bincount(part.labels, minlength=4).tolist() for part in (train, validation, test)]
    assert sizes == [[13, 7, 10, 1], [3, 2, 2, 0], [4, 2, 3, 0]]
    ids = np.concatenate([part.image_ids for part in (train, validation, test)])
    assert len(set(ids.tolist())) == 47


def test_a_closed_set_follows_its_seed() -> None:
    ids = [closed_set(dataset(), seed)[2].image_ids.tolist() for seed in (0, 0, 1, None)]
    assert ids[0] == ids[1]
    assert ids[0] != ids[2]
    assert ids[3] == [16, 17, 18, 19, 29, 30, 202, 203, 204]


def test_classes_that_are_too_small() -> None:
    small = ImageDataset("small", collection({"a": 5, "b": 5}, "x", 0), collection({"c": 5}, "y", 50))
    with pytest.raises(ValueError, match="expected classes of at least 10 images, found at most 5"):
        closed_set(small)


def test_boxes_are_joined_if_all_have_them() -> None:
    def part(first: int, boxes: np.ndarray | None) -> ImageCollection:
        images = InMemoryRecords([b"a", b"b"])
        return ImageCollection(
            np.array([0, 0]), (f"class {first}",), first + np.arange(2), images, np.array([1, 0]), boxes
        )

    boxes = np.arange(16).reshape(4, 4)
    np.testing.assert_array_equal(join([part(0, boxes[:2]), part(2, boxes[2:])]).boxes, boxes)
    assert join([part(0, boxes[:2]), part(2, None)]).boxes is None
