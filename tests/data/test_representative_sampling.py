from __future__ import annotations

from collections import Counter, defaultdict

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ccp_dml.data.sampling import MPerClassSampler, RepresentativeSampler
from tests.data.test_sampling import class_sizes, shuffled_labels

quick = settings(max_examples=25, deadline=None, derandomize=True)


@quick
@given(
    sizes=class_sizes,
    samples=st.integers(2, 5),
    lifetime=st.integers(1, 7),
    seed=st.integers(0, 99),
    data=st.data(),
)
def test_batches(sizes: list[int], samples: int, lifetime: int, seed: int, data: st.DataObject) -> None:
    labels, num_classes = shuffled_labels(sizes), len(sizes)
    classes_per_batch = data.draw(st.integers(1, num_classes))
    sampler = RepresentativeSampler(labels, classes_per_batch, samples, lifetime, seed)
    plain = MPerClassSampler(labels, classes_per_batch, samples, seed)
    first: dict[tuple[int, int], set[int]] = defaultdict(set)
    for step in range(4 * num_classes):
        batch = sampler.batch(step).reshape(samples, classes_per_batch)
        # The classes are those of M per class, which are distinct and come once per pass.
        np.testing.assert_array_equal(labels[batch].ravel(), labels[plain.batch(step)])
        for column in batch.T.tolist():
            label = int(labels[column[0]])
            first[label, step // lifetime].add(column[0])
            if sizes[label] >= samples:
                assert len(set(column)) == samples
            elif sizes[label] > 1:
                assert column.count(column[0]) == 1, "only the others are repeated"
    assert all(len(images) == 1 for images in first.values()), "the same in all batches of a lifetime"


@quick
@given(sizes=class_sizes, samples=st.integers(2, 4), seed=st.integers(0, 99))
def test_every_image_represents_its_class_equally_often(sizes: list[int], samples: int, seed: int) -> None:
    labels, num_classes = shuffled_labels(sizes), len(sizes)
    sampler = RepresentativeSampler(labels, num_classes, samples, 2, seed)
    largest = max(sizes)
    first = np.stack([np.sort(sampler.batch(2 * r)[:num_classes]) for r in range(3 * largest)])
    by_class = {label: first[labels[first] == label] for label in range(num_classes)}
    for label, size in enumerate(sizes):
        for begin in range(0, 3 * largest - size + 1, size):
            assert len(set(by_class[label][begin : begin + size].tolist())) == size


@quick
@given(size=st.integers(2, 9), samples=st.integers(2, 5), seed=st.integers(0, 99))
def test_in_a_lifetime_the_others_come_round_in_passes(size: int, samples: int, seed: int) -> None:
    sampler = RepresentativeSampler(np.zeros(size, np.int64), 1, samples, 1000, seed)
    batches = np.stack([sampler.batch(step) for step in range(3 * size)])
    (representative,) = set(batches[:, 0].tolist())
    others = batches[:, 1:].ravel()
    for begin in range(0, len(others) - size + 2, size - 1):
        counts = Counter(others[begin : begin + size - 1].tolist())
        assert counts == Counter(set(range(size)) - {representative})


@quick
@given(
    sizes=class_sizes,
    lifetime=st.integers(1, 9),
    seed=st.integers(0, 99),
    steps=st.lists(st.integers(0, 500), min_size=2, max_size=6),
)
def test_a_batch_depends_on_seed_and_step_alone(
    sizes: list[int], lifetime: int, seed: int, steps: list[int]
) -> None:
    labels = shuffled_labels(sizes)
    in_any_order = RepresentativeSampler(labels, 2, 3, lifetime, seed)
    for step in steps:
        expected = RepresentativeSampler(labels, 2, 3, lifetime, seed).batch(step)
        np.testing.assert_array_equal(in_any_order.batch(step), expected)


def test_a_class_of_one_image_is_its_representative() -> None:
    sampler = RepresentativeSampler(np.array([0, 1, 1]), 2, 3, 5)
    batch = sampler.batch(0).reshape(3, 2)
    assert sampler.batch_size == 6
    assert sorted(batch[:, batch[0] == 0].ravel().tolist()) == [0, 0, 0]


@pytest.mark.parametrize(
    ("classes", "samples", "lifetime", "message"),
    [
        (3, 2, 1, "classes_per_batch must be between 1 and the number of training classes, 2, found 3"),
        (2, 1, 1, "samples_per_class must be at least 2, one of them the representative, found 1"),
        (2, 2, 0, "lifetime must be at least 1, found 0"),
    ],
)
def test_bad_arguments(classes: int, samples: int, lifetime: int, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        RepresentativeSampler(np.array([0, 0, 1]), classes, samples, lifetime)
