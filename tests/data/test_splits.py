"""Class folds, held-out classes, closed sets and label noise."""

from __future__ import annotations

from collections import defaultdict

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ccp_dml.data.collection import ImageCollection, ImageDataset, InMemoryRecords
from ccp_dml.data.splits import add_label_noise, class_fold, closed_set, hold_out_classes, split_images

quick = settings(max_examples=40, deadline=None, derandomize=True)


@quick
@given(num_classes=st.integers(2, 200), data=st.data())
def test_folds_cut_the_classes_into_blocks_from_the_end(num_classes: int, data: st.DataObject) -> None:
    num_folds = data.draw(st.integers(2, num_classes))
    folds = [class_fold(num_classes, num_folds, fold) for fold in range(1, num_folds + 1)]
    blocks = [validation.tolist() for _, validation in folds]
    assert np.concatenate(blocks[::-1]).tolist() == list(range(num_classes))
    assert max(map(len, blocks)) - min(map(len, blocks)) <= 1
    for train, validation in folds:
        assert train.tolist() == [c for c in range(num_classes) if c not in set(validation.tolist())]


def test_a_single_fold_holds_no_class_out() -> None:
    for part in class_fold(6, 1, 1):
        np.testing.assert_array_equal(part, np.arange(6))


@pytest.mark.parametrize("arguments", [(4, 0, 1), (4, 5, 1), (4, 2, 0), (4, 2, 3)])
def test_folds_out_of_range_are_refused(arguments: tuple[int, int, int]) -> None:
    with pytest.raises(ValueError, match="must be between 1 and"):
        class_fold(*arguments)


@pytest.mark.parametrize(("fraction", "held_out"), [(0, 0), (0.01, 1), (0.2, 2), (0.25, 2), (0.9, 9)])
def test_the_last_classes_are_held_out(fraction: float, held_out: int) -> None:
    train, validation = hold_out_classes(10, fraction)
    np.testing.assert_array_equal(np.concatenate([train, validation]), np.arange(10))
    assert len(validation) == held_out


@pytest.mark.parametrize(
    ("num_classes", "fraction", "message"),
    [
        (10, 1.0, r"\[0, 1\), found 1.0"),
        (10, -0.1, "found -0.1"),
        (10, 0.99, "none to train"),
        (1, 0.5, "1 class\\(es\\)"),
    ],
)
def test_fractions_that_leave_no_training_class_are_refused(
    num_classes: int, fraction: float, message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        hold_out_classes(num_classes, fraction)


def numbered(classes: dict[str, int], first_id: int) -> ImageCollection:
    """A collection with the given number of images of each class, without image data."""
    labels = np.repeat(np.arange(len(classes)), list(classes.values()))
    rows = np.arange(len(labels))
    return ImageCollection(
        labels, tuple(classes), first_id + rows, InMemoryRecords([b""] * len(labels)), rows
    )


@quick
@given(labels=st.lists(st.integers(0, 4), max_size=120).map(lambda more: np.array([0, 1, 2, 3, 4, *more])))
def test_each_class_is_split_in_its_order(labels: np.ndarray) -> None:
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
def test_every_image_is_in_one_split(sizes: list[int], keys: object) -> None:
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
def test_splits_of_small_classes(size: int, expected: tuple[int, int, int]) -> None:
    assert tuple(len(part) for part in split_images(np.zeros(size, np.int64))) == expected


def test_classes_of_ten_images_have_pairs_in_every_split() -> None:
    for size in range(10, 200):
        assert min(len(part) for part in split_images(np.zeros(size, np.int64))) >= 2


def dataset() -> ImageDataset:
    train = numbered({"a": 20, "b": 11}, 0)
    test, gallery = numbered({"c": 10, "d": 1}, 100), numbered({"c": 5, "d": 0}, 200)
    return ImageDataset("some", train, test, gallery)


def test_the_splits_of_a_closed_set_share_their_classes() -> None:
    train, validation, test = closed_set(dataset(), seed=0)
    assert train.class_names == validation.class_names == test.class_names == ("a", "b", "c", "d")
    sizes = [np.bincount(part.labels, minlength=4).tolist() for part in (train, validation, test)]
    assert sizes == [[13, 7, 10, 1], [3, 2, 2, 0], [4, 2, 3, 0]]
    ids = np.concatenate([part.image_ids for part in (train, validation, test)])
    assert len(set(ids.tolist())) == 47


def test_a_closed_set_depends_on_its_seed() -> None:
    ids = [closed_set(dataset(), seed)[2].image_ids.tolist() for seed in (0, 0, 1, None)]
    assert ids[0] == ids[1]
    assert ids[0] != ids[2]
    assert ids[3] == [16, 17, 18, 19, 29, 30, 202, 203, 204]


def test_classes_too_small_for_retrieval_are_refused() -> None:
    small = ImageDataset("small", numbered({"a": 5, "b": 5}, 0), numbered({"c": 5}, 50))
    with pytest.raises(ValueError, match="expected classes of at least 10 images, found at most 5"):
        closed_set(small)


def shuffled(sizes: list[int]) -> ImageCollection:
    labels = np.random.default_rng(1).permutation(np.repeat(np.arange(len(sizes)), sizes))
    ids = 7 * np.arange(len(labels))
    names = tuple(f"class {label}" for label in range(len(sizes)))
    return ImageCollection(labels, names, ids, InMemoryRecords([b""] * len(labels)), np.arange(len(labels)))


@quick
@given(
    sizes=st.lists(st.integers(2, 30), min_size=2, max_size=8),
    share=st.floats(0, 0.5),
    seed=st.integers(0, 99),
)
def test_the_given_share_of_images_gets_another_label(sizes: list[int], share: float, seed: int) -> None:
    images = shuffled(sizes)
    noisy = add_label_noise(images, share, seed)
    changed = noisy.labels != images.labels
    assert changed.sum() == round(share * len(images))
    for label in range(len(sizes)):
        assert not changed[images.labels == label].all(), "one image of every class keeps its label"
    assert noisy.class_names == images.class_names
    np.testing.assert_array_equal(noisy.image_ids, images.image_ids)
    np.testing.assert_array_equal(noisy.rows, images.rows)


@quick
@given(sizes=st.lists(st.integers(2, 9), min_size=2, max_size=6), seed=st.integers(0, 99))
def test_label_noise_does_not_depend_on_the_order_of_images(sizes: list[int], seed: int) -> None:
    images = shuffled(sizes)
    noisy = add_label_noise(images, 0.4, seed)
    order = np.random.default_rng(seed).permutation(len(images))
    np.testing.assert_array_equal(
        add_label_noise(images.subset(order), 0.4, seed).labels, noisy.labels[order]
    )


def test_seeds_give_different_label_noise() -> None:
    images = shuffled([30, 30, 30])
    assert len({tuple(add_label_noise(images, 0.2, seed).labels.tolist()) for seed in range(5)}) == 5


def test_images_and_wrong_classes_are_drawn_uniformly() -> None:
    images = shuffled([4, 4, 4, 4])
    changed, wrong = np.zeros(16), np.zeros((4, 4))
    for seed in range(2000):
        labels = add_label_noise(images, 0.5, seed).labels
        changed += labels != images.labels
        np.add.at(wrong, (images.labels, labels), labels != images.labels)
    # 15 degrees of freedom: 37.7 is exceeded with probability 0.001. Drawing without replacement varies less.
    assert ((changed - 1000) ** 2 / 1000).sum() < 37.7
    off_diagonal = wrong[~np.eye(4, dtype=bool)]
    # 11 degrees of freedom: 31.3 is exceeded with probability 0.001.
    assert ((off_diagonal - 16000 / 12) ** 2 / (16000 / 12)).sum() < 31.3
    assert (np.diag(wrong) == 0).all()


def test_a_share_of_zero_changes_no_label() -> None:
    images = shuffled([3, 4])
    np.testing.assert_array_equal(add_label_noise(images, 0.0, 0).labels, images.labels)


def test_classes_of_one_image_keep_their_label() -> None:
    images = shuffled([1, 1, 8])
    noisy = add_label_noise(images, 0.4, 3)
    for label in (0, 1):
        [only] = np.flatnonzero(images.labels == label)
        assert noisy.labels[only] == label


@pytest.mark.parametrize(
    ("sizes", "share", "message"),
    [
        ([2, 2], 1.0, "the share of wrong labels must be in"),
        ([2, 2], -0.1, "the share of wrong labels must be in"),
        ([2, 2], 0.8, "3 of 4 labels cannot be wrong, but 2 at most"),
        ([1, 1, 1], 0.4, "1 of 3 labels cannot be wrong, but 0 at most"),
        ([9], 0.2, "2 of 9 labels cannot be wrong, but 0 at most"),
    ],
)
def test_impossible_shares_are_refused(sizes: list[int], share: float, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        add_label_noise(shuffled(sizes), share, 0)
