from __future__ import annotations

from collections import Counter

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ccp_dml.data.sampling import ClassUniformSampler, MPerClassSampler, RandomSampler
from tests.data.test_sampling import class_sizes, shuffled_labels

quick = settings(max_examples=25, deadline=None, derandomize=True)
batch_sizes = st.integers(1, 30)


@quick
@given(num_images=st.integers(1, 40), batch_size=batch_sizes, seed=st.integers(0, 99))
def test_random_batches_use_every_image_once_per_pass(num_images: int, batch_size: int, seed: int) -> None:
    sampler = RandomSampler(num_images, batch_size, seed)
    batches = [sampler.batch(step) for step in range(3 * num_images)]
    assert all(batch.shape == (batch_size,) for batch in batches)
    for one_pass in np.concatenate(batches)[: 3 * num_images].reshape(-1, num_images):
        assert sorted(one_pass.tolist()) == list(range(num_images))
    if batch_size <= num_images:
        assert all(len(set(batch.tolist())) == batch_size for batch in batches)


@quick
@given(sizes=class_sizes, batch_size=batch_sizes, seed=st.integers(0, 99))
def test_class_uniform_batches_visit_every_class_once_per_pass(
    sizes: list[int], batch_size: int, seed: int
) -> None:
    labels, num_classes = shuffled_labels(sizes), len(sizes)
    sampler = ClassUniformSampler(labels, batch_size, seed)
    batches = [sampler.batch(step) for step in range(4 * num_classes)]
    stream = np.concatenate(batches)
    passes = stream[: len(stream) // num_classes * num_classes].reshape(-1, num_classes)
    for one_pass in passes:
        assert sorted(labels[one_pass].tolist()) == list(range(num_classes))
    for label, size in enumerate(sizes):
        images = stream[labels[stream] == label]
        for begin in range(0, len(images), size):
            assert max(Counter(images[begin : begin + size].tolist()).values()) == 1
    if batch_size <= num_classes:
        assert all(len(set(labels[batch].tolist())) == batch_size for batch in batches)


@quick
@given(sizes=class_sizes, seed=st.integers(0, 99), data=st.data())
def test_small_class_uniform_batches_are_those_of_one_image_per_class(
    sizes: list[int], seed: int, data: st.DataObject
) -> None:
    labels, step = shuffled_labels(sizes), data.draw(st.integers(0, 999))
    batch_size = data.draw(st.integers(1, len(sizes)))
    np.testing.assert_array_equal(
        ClassUniformSampler(labels, batch_size, seed).batch(step),
        MPerClassSampler(labels, batch_size, 1, seed).batch(step),
    )


@quick
@given(
    sizes=class_sizes,
    batch_size=batch_sizes,
    seed=st.integers(0, 99),
    steps=st.lists(st.integers(0, 500), min_size=2, max_size=5),
)
def test_a_batch_depends_on_seed_and_step_alone(
    sizes: list[int], batch_size: int, seed: int, steps: list[int]
) -> None:
    labels = shuffled_labels(sizes)

    def fresh() -> list[RandomSampler | ClassUniformSampler]:
        return [RandomSampler(len(labels), batch_size, seed), ClassUniformSampler(labels, batch_size, seed)]

    in_any_order = fresh()
    for step in steps:
        for used_before, new in zip(in_any_order, fresh()):
            np.testing.assert_array_equal(used_before.batch(step), new.batch(step))


def test_seeds_give_different_batches() -> None:
    labels = shuffled_labels([6] * 10)
    for make in (lambda seed: RandomSampler(60, 8, seed), lambda seed: ClassUniformSampler(labels, 8, seed)):
        assert len({tuple(make(seed).batch(0).tolist()) for seed in range(5)}) == 5


def test_random_batches_favour_large_classes_and_class_uniform_ones_do_not() -> None:
    labels = np.repeat([0, 1, 2, 3], [70, 10, 10, 10])
    by_image, by_class = RandomSampler(100, 10, 0), ClassUniformSampler(labels, 10, 0)
    for sampler, expected in ((by_image, [700, 100, 100, 100]), (by_class, [250, 250, 250, 250])):
        seen = np.concatenate([sampler.batch(step) for step in range(100)])
        assert np.bincount(labels[seen]).tolist() == expected


def test_bad_arguments() -> None:
    with pytest.raises(ValueError, match="batch_size must be at least 1, found 0"):
        RandomSampler(3, 0)
    with pytest.raises(ValueError, match="num_images must be at least 1, found 0"):
        RandomSampler(0, 3)
    with pytest.raises(ValueError, match="batch_size must be at least 1, found 0"):
        ClassUniformSampler(np.array([0, 1]), 0)
    with pytest.raises(ValueError, match="class 1 of 3 has no image"):
        ClassUniformSampler(np.array([0, 2]), 1)
