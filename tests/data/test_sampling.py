"""Samplers: the images of a batch as a function of the seed and the step."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ccp_dml.data.options import BatchOptions
from ccp_dml.data.sampling import (
    ClassUniformSampler,
    MPerClassSampler,
    OnePerClassSampler,
    RandomSampler,
    RepresentativeSampler,
    Sampler,
    StepBlocks,
    make_sampler,
)

quick = settings(max_examples=25, deadline=None, derandomize=True)
class_sizes = st.lists(st.integers(1, 9), min_size=2, max_size=12)
batch_sizes = st.integers(1, 30)
seeds = st.integers(0, 99)
# From labels, a number (lifetime or batch size) and a seed.
SAMPLERS: dict[str, Callable[[np.ndarray, int, int], Sampler]] = {
    "m_per_class": lambda labels, _, seed: MPerClassSampler(labels, 2, 3, seed),
    "representatives": lambda labels, number, seed: RepresentativeSampler(labels, 2, 3, number, seed),
    "random": lambda labels, number, seed: RandomSampler(len(labels), number, seed),
    "class_uniform": lambda labels, number, seed: ClassUniformSampler(labels, number, seed),
}


def shuffled_labels(sizes: list[int]) -> np.ndarray:
    labels = np.repeat(np.arange(len(sizes)), sizes)
    return np.random.default_rng(0).permutation(labels)


@pytest.mark.parametrize("name", SAMPLERS)
@quick
@given(
    sizes=class_sizes,
    number=batch_sizes,
    seed=seeds,
    steps=st.lists(st.integers(0, 500), min_size=2, max_size=6),
)
def test_a_batch_depends_on_seed_and_step_alone(
    name: str, sizes: list[int], number: int, seed: int, steps: list[int]
) -> None:
    labels = shuffled_labels(sizes)
    used_before = SAMPLERS[name](labels, number, seed)
    for step in steps:
        batch = used_before.batch(step)
        assert batch.shape == (used_before.batch_size,)
        np.testing.assert_array_equal(batch, SAMPLERS[name](labels, number, seed).batch(step))


@pytest.mark.parametrize("name", SAMPLERS)
def test_seeds_give_different_batches(name: str) -> None:
    labels = shuffled_labels([6] * 10)
    batches = [SAMPLERS[name](labels, 8, seed).batch(0).tolist() for seed in range(5)]
    assert len({tuple(batch) for batch in batches}) == 5


@quick
@given(sizes=class_sizes, samples=st.integers(1, 5), seed=seeds, data=st.data())
def test_m_per_class(sizes: list[int], samples: int, seed: int, data: st.DataObject) -> None:
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
def test_m_per_class_checks_its_arguments(
    labels: list[int], classes: int, samples: int, message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        MPerClassSampler(np.array(labels), classes, samples)


@quick
@given(
    sizes=class_sizes,
    samples=st.integers(2, 5),
    lifetime=st.integers(1, 7),
    seed=seeds,
    data=st.data(),
)
def test_representatives_stay_for_a_lifetime(
    sizes: list[int], samples: int, lifetime: int, seed: int, data: st.DataObject
) -> None:
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
                assert column.count(column[0]) == 1, "the representative is not repeated"
    assert all(len(images) == 1 for images in first.values())


@quick
@given(sizes=class_sizes, samples=st.integers(2, 4), seed=seeds)
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
@given(size=st.integers(2, 9), samples=st.integers(2, 5), seed=seeds)
def test_within_a_lifetime_the_other_images_come_in_passes(size: int, samples: int, seed: int) -> None:
    sampler = RepresentativeSampler(np.zeros(size, np.int64), 1, samples, 1000, seed)
    batches = np.stack([sampler.batch(step) for step in range(3 * size)])
    (representative,) = set(batches[:, 0].tolist())
    others = batches[:, 1:].ravel()
    for begin in range(0, len(others) - size + 2, size - 1):
        counts = Counter(others[begin : begin + size - 1].tolist())
        assert counts == Counter(set(range(size)) - {representative})


def test_a_class_of_one_image_repeats_its_representative() -> None:
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
def test_the_representative_sampler_checks_its_arguments(
    classes: int, samples: int, lifetime: int, message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        RepresentativeSampler(np.array([0, 0, 1]), classes, samples, lifetime)


@quick
@given(num_images=st.integers(1, 40), batch_size=batch_sizes, seed=seeds)
def test_random_batches_use_every_image_once_per_pass(num_images: int, batch_size: int, seed: int) -> None:
    sampler = RandomSampler(num_images, batch_size, seed)
    batches = [sampler.batch(step) for step in range(3 * num_images)]
    assert all(batch.shape == (batch_size,) for batch in batches)
    for one_pass in np.concatenate(batches)[: 3 * num_images].reshape(-1, num_images):
        assert sorted(one_pass.tolist()) == list(range(num_images))
    if batch_size <= num_images:
        assert all(len(set(batch.tolist())) == batch_size for batch in batches)


@quick
@given(sizes=class_sizes, batch_size=batch_sizes, seed=seeds)
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
@given(sizes=class_sizes, seed=seeds, data=st.data())
def test_small_class_uniform_batches_equal_m_per_class_with_one_image(
    sizes: list[int], seed: int, data: st.DataObject
) -> None:
    labels, step = shuffled_labels(sizes), data.draw(st.integers(0, 999))
    batch_size = data.draw(st.integers(1, len(sizes)))
    np.testing.assert_array_equal(
        ClassUniformSampler(labels, batch_size, seed).batch(step),
        MPerClassSampler(labels, batch_size, 1, seed).batch(step),
    )


def test_random_batches_favor_large_classes_and_class_uniform_ones_do_not() -> None:
    labels = np.repeat([0, 1, 2, 3], [70, 10, 10, 10])
    by_image, by_class = RandomSampler(100, 10, 0), ClassUniformSampler(labels, 10, 0)
    for sampler, expected in ((by_image, [700, 100, 100, 100]), (by_class, [250, 250, 250, 250])):
        seen = np.concatenate([sampler.batch(step) for step in range(100)])
        assert np.bincount(labels[seen]).tolist() == expected


def test_random_and_class_uniform_samplers_check_their_arguments() -> None:
    with pytest.raises(ValueError, match="batch_size must be at least 1, found 0"):
        RandomSampler(3, 0)
    with pytest.raises(ValueError, match="num_images must be at least 1, found 0"):
        RandomSampler(0, 3)
    with pytest.raises(ValueError, match="batch_size must be at least 1, found 0"):
        ClassUniformSampler(np.array([0, 1]), 0)
    with pytest.raises(ValueError, match="class 1 of 3 has no image"):
        ClassUniformSampler(np.array([0, 2]), 1)


@quick
@given(sizes=class_sizes, seed=seeds, window=st.integers(1, 6))
def test_draws_hold_one_image_of_each_class(sizes: list[int], seed: int, window: int) -> None:
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


@pytest.mark.parametrize(("size", "window"), [(6, 7), (5, 7), (7, 7), (11, 12), (1, 3), (4, 9), (3, 144)])
@pytest.mark.parametrize("seed", [0, 2**40])
def test_a_window_holds_all_images_of_a_class_that_is_not_larger(size: int, window: int, seed: int) -> None:
    sampler = OnePerClassSampler(shuffled_labels([size, 20, size]), seed, window)
    for number in range(40):
        draws = sampler.draws(number * window, window)
        assert [len(set(images.tolist())) for images in draws.T] == [size, min(window, 20), size]


def test_draws_can_start_anywhere() -> None:
    labels = shuffled_labels([5, 3, 7, 1])
    sampler = OnePerClassSampler(labels, 3, window=4)
    together = sampler.draws(5, 17)
    one_by_one = [OnePerClassSampler(labels, 3, window=4).draws(number, 1)[0] for number in range(5, 22)]
    np.testing.assert_array_equal(together, np.stack(one_by_one))
    assert sampler.draws(9, 0).shape == (0, 4)


def test_draws_and_batches_are_independent() -> None:
    labels = np.zeros(50, np.int64)
    draws = OnePerClassSampler(labels, 0).draws(0, 50)[:, 0]
    assert (MPerClassSampler(labels, 1, 50, 0).batch(0) != draws).any()


def test_draws_refuse_an_empty_window() -> None:
    with pytest.raises(ValueError, match="window"):
        OnePerClassSampler(np.array([0, 1]), window=0)


LABELS = np.repeat(np.arange(12), 5)


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({}, MPerClassSampler(LABELS, 8, 4, 7)),
        ({"classes_per_batch": 3, "samples_per_class": 2}, MPerClassSampler(LABELS, 3, 2, 7)),
        ({"representative_lifetime": 5}, RepresentativeSampler(LABELS, 8, 4, 5, 7)),
        ({"sampler": "random", "batch_size": 32}, RandomSampler(60, 32, 7)),
        ({"sampler": "class_uniform", "batch_size": 9}, ClassUniformSampler(LABELS, 9, 7)),
    ],
)
def test_options_give_the_sampler(options: dict, expected: Sampler) -> None:
    found = make_sampler(BatchOptions(**options), LABELS, 7)
    assert type(found) is type(expected)
    assert found.batch_size == expected.batch_size
    for step in (0, 9, 14):
        np.testing.assert_array_equal(found.batch(step), expected.batch(step))


@pytest.mark.parametrize("images_per_step", [0, 10, 5_000, 10**9])
def test_results_of_steps_do_not_depend_on_the_blocks(images_per_step: float) -> None:
    blocks = StepBlocks(lambda steps: np.stack([steps, steps**2], 1), images_per_step)
    for step in (0, 1, 31, 32, 33, 7, 1000, 31):
        assert blocks(step).tolist() == [step, step**2]


def test_a_batch_may_be_modified() -> None:
    sampler = MPerClassSampler(np.arange(9) // 3, 2, 2)
    before = sampler.batch(3).tolist()
    sampler.batch(3)[:] = -1
    assert sampler.batch(3).tolist() == before
