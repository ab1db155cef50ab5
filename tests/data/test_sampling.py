from __future__ import annotations

from collections import Counter

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ccp_dml.data.sampling import MPerClassSampler, OnePerClassSampler

quick = settings(max_examples=25, deadline=None, derandomize=True)
class_sizes = st.lists(st.integers(1, 9), min_size=2, max_size=12)


def shuffled_labels(sizes: list[int]) -> np.ndarray:
    labels = np.repeat(np.arange(len(sizes)), sizes)
    return np.random.default_rng(0).permutation(labels)


@quick
@given(sizes=class_sizes, samples=st.integers(1, 5), seed=st.integers(0, 99), data=st.data())
def test_batches(sizes: list[int], samples: int, seed: int, data: st.DataObject) -> None:
    labels, num_classes = shuffled_labels(sizes), len(sizes)
    classes_per_batch = data.draw(st.integers(1, num_classes))
    sampler = MPerClassSampler(labels, classes_per_batch, samples, seed)
    slots: list[int] = []
    picks: dict[int, list[int]] = {label: [] for label in range(num_classes)}
    for step in range(3 * num_classes):
        batch = sampler.batch(step).reshape(samples, classes_per_batch)
        assert (labels[batch] == labels[batch[0]]).all(), "sample-major: a column holds one class"
        assert len(set(labels[batch[0]].tolist())) == classes_per_batch
        slots += labels[batch[0]].tolist()
        for column in batch.T:
            picks[labels[column[0]]] += column.tolist()
            if sizes[labels[column[0]]] >= samples:
                assert len(set(column.tolist())) == samples
    for begin in range(0, len(slots) - num_classes + 1, num_classes):
        assert sorted(slots[begin : begin + num_classes]) == list(range(num_classes))
    for label, images in picks.items():
        for begin in range(0, len(images), sizes[label]):
            assert max(Counter(images[begin : begin + sizes[label]]).values(), default=1) == 1


@quick
@given(
    sizes=class_sizes, seed=st.integers(0, 99), steps=st.lists(st.integers(0, 500), min_size=2, max_size=6)
)
def test_a_batch_depends_on_seed_and_step_alone(sizes: list[int], seed: int, steps: list[int]) -> None:
    labels = shuffled_labels(sizes)
    in_any_order = MPerClassSampler(labels, 2, 3, seed)
    for step in steps:
        np.testing.assert_array_equal(
            in_any_order.batch(step), MPerClassSampler(labels, 2, 3, seed).batch(step)
        )


def test_seeds_give_different_batches() -> None:
    labels = shuffled_labels([6] * 10)
    batches = [MPerClassSampler(labels, 5, 2, seed).batch(0).tolist() for seed in range(5)]
    assert len({tuple(batch) for batch in batches}) == 5


def test_steps_per_pass_visit_every_class() -> None:
    labels = shuffled_labels([2] * 11)
    sampler = MPerClassSampler(labels, 4, 2, 0)
    assert sampler.steps_per_pass == 3
    batches = np.concatenate([sampler.batch(step) for step in range(3)])
    assert set(labels[batches].tolist()) == set(range(11))


@quick
@given(sizes=class_sizes, seed=st.integers(0, 99), window=st.integers(1, 6))
def test_one_image_per_class_and_draw(sizes: list[int], seed: int, window: int) -> None:
    labels = shuffled_labels(sizes)
    draws = OnePerClassSampler(labels, seed, window).draws(0, 6 * window)
    assert draws.shape == (6 * window, len(sizes))
    assert (labels[draws] == np.arange(len(sizes))).all()
    for label, size in enumerate(sizes):
        images = draws[:, label]
        for begin in range(0, len(images), size):
            assert len(set(images[begin : begin + size].tolist())) == len(images[begin : begin + size])
        if window <= size:
            assert all(len(set(part.tolist())) == window for part in images.reshape(6, window))


def test_draws_are_random_access() -> None:
    labels = shuffled_labels([5, 3, 7, 1])
    sampler = OnePerClassSampler(labels, 3, window=4)
    together = sampler.draws(5, 17)
    one_by_one = np.stack([OnePerClassSampler(labels, 3, window=4).draw(number) for number in range(5, 22)])
    np.testing.assert_array_equal(together, one_by_one)
    assert sampler.draws(9, 0).shape == (0, 4)


def test_draws_of_batches_and_of_proxies_are_independent() -> None:
    labels = np.zeros(50, np.int64)
    assert (
        MPerClassSampler(labels, 1, 50, 0).batch(0) != OnePerClassSampler(labels, 0).draws(0, 50)[:, 0]
    ).any()


@pytest.mark.parametrize(
    ("labels", "classes", "samples", "message"),
    [
        (
            [0, 0, 1, 1],
            3,
            2,
            "classes_per_batch must be between 1 and the number of training classes, 2, found 3",
        ),
        ([0, 0, 1, 1], 0, 2, "classes_per_batch"),
        ([0, 0, 1, 1], 2, 0, "samples_per_class"),
        ([0, 0, 2], 2, 1, "class 1 of 3 has no image"),
        ([-1, 0], 1, 1, "0 or more, found -1"),
        ([], 1, 1, "non-empty"),
        ([0.5, 1], 1, 1, "integers"),
    ],
)
def test_bad_arguments(labels: list[int], classes: int, samples: int, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        MPerClassSampler(np.array(labels), classes, samples)


def test_one_per_class_refuses_an_empty_window() -> None:
    with pytest.raises(ValueError, match="window"):
        OnePerClassSampler(np.array([0, 1]), window=0)
