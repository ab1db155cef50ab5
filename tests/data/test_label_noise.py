from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ccp_dml.data.collection import ImageCollection, InMemoryRecords
from ccp_dml.data.splits import add_label_noise

quick = settings(max_examples=40, deadline=None, derandomize=True)


def collection(sizes: list[int]) -> ImageCollection:
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
def test_just_the_share_gets_a_wrong_label(sizes: list[int], share: float, seed: int) -> None:
    images = collection(sizes)
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
def test_noise_depends_on_seed_and_images_not_on_their_order(sizes: list[int], seed: int) -> None:
    images = collection(sizes)
    noisy = add_label_noise(images, 0.4, seed)
    order = np.random.default_rng(seed).permutation(len(images))
    np.testing.assert_array_equal(
        add_label_noise(images.subset(order), 0.4, seed).labels, noisy.labels[order]
    )


def test_seeds_give_different_noise() -> None:
    images = collection([30, 30, 30])
    assert len({tuple(add_label_noise(images, 0.2, seed).labels.tolist()) for seed in range(5)}) == 5


def test_all_images_and_all_wrong_classes_are_equally_likely() -> None:
    images = collection([4, 4, 4, 4])
    changed, wrong = np.zeros(16), np.zeros((4, 4))
    for seed in range(2000):
        labels = add_label_noise(images, 0.5, seed).labels
        changed += labels != images.labels
        np.add.at(wrong, (images.labels, labels), labels != images.labels)
    # 15 degrees of freedom: 37.7 is exceeded with probability 0.001. A pick without repetition varies less.
    assert ((changed - 1000) ** 2 / 1000).sum() < 37.7
    off_diagonal = wrong[~np.eye(4, dtype=bool)]
    # 11 degrees of freedom: 31.3 is exceeded with probability 0.001.
    assert ((off_diagonal - 16000 / 12) ** 2 / (16000 / 12)).sum() < 31.3
    assert (np.diag(wrong) == 0).all()


def test_no_noise_changes_nothing() -> None:
    images = collection([3, 4])
    np.testing.assert_array_equal(add_label_noise(images, 0.0, 0).labels, images.labels)


def test_classes_of_one_image_are_kept() -> None:
    images = collection([1, 1, 8])
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
def test_shares_that_cannot_be_had(sizes: list[int], share: float, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        add_label_noise(collection(sizes), share, 0)
