"""Hashed keys, uniform numbers, permutations, and windows of distinct items."""

from __future__ import annotations

import numpy as np
import pytest
import tensorflow as tf
from hypothesis import given, settings
from hypothesis import strategies as st

from ccp_dml.data.random_streams import (
    PermutationWindows,
    RaggedPermutationWindows,
    random_keys,
    random_permutation,
    uniform_draws,
)

quick = settings(max_examples=25, deadline=None, derandomize=True)


def sequential_stream(size: int, window: int, words: tuple[int, ...], num_windows: int) -> list[list[int]]:
    """The definition, item by item: fill windows from a queue, passing over what is in the window already."""
    queue: list[int] = []
    windows: list[list[int]] = []
    number = 0
    for _ in range(num_windows):
        current: list[int] = []
        while len(current) < window:
            place = next((i for i, item in enumerate(queue) if window > size or item not in current), None)
            if place is None:
                queue += random_permutation(size, *words, number).tolist()
                number += 1
            else:
                current.append(queue.pop(place))
        windows.append(current)
    return windows


@quick
@given(size=st.integers(1, 14), window=st.integers(1, 14), seed=st.integers(-3, 2**70))
def test_windows_equal_the_sequential_definition(size: int, window: int, seed: int) -> None:
    windows = PermutationWindows(size, window, seed, 9)
    found = [windows(index).tolist() for index in range(40)]
    assert found == sequential_stream(size, window, (seed, 9), 40)


@quick
@given(size=st.integers(1, 40), window=st.integers(1, 40), seed=st.integers(0, 99))
def test_every_pass_is_a_permutation_and_windows_are_distinct(size: int, window: int, seed: int) -> None:
    windows = [PermutationWindows(size, window, seed)(index) for index in range(2 * size)]
    passes = np.concatenate(windows).reshape(-1, size)
    np.testing.assert_array_equal(np.sort(passes, axis=1), np.tile(np.arange(size), (len(passes), 1)))
    if window <= size:
        assert all(len(set(items.tolist())) == window for items in windows)


@quick
@given(size=st.integers(1, 30), window=st.integers(1, 30), seed=st.integers(0, 99), data=st.data())
def test_random_access_equals_sequential_access(
    size: int, window: int, seed: int, data: st.DataObject
) -> None:
    sequential = PermutationWindows(size, window, seed)
    windows = [sequential(index) for index in range(60)]
    order = data.draw(st.lists(st.integers(0, 59), min_size=5, max_size=10))
    reused = PermutationWindows(size, window, seed)
    for index in order:
        np.testing.assert_array_equal(PermutationWindows(size, window, seed)(index), windows[index])
        np.testing.assert_array_equal(reused(index), windows[index])


@quick
@given(
    sizes=st.lists(st.integers(1, 20), min_size=1, max_size=8),
    window=st.integers(1, 9),
    seed=st.integers(0, 99),
    data=st.data(),
)
def test_many_streams_at_once_equal_one_stream_at_a_time(
    sizes: list[int], window: int, seed: int, data: st.DataObject
) -> None:
    rows = np.array(data.draw(st.permutations(range(len(sizes)))))
    indices = np.array(data.draw(st.lists(st.integers(0, 50), min_size=len(rows), max_size=len(rows))))
    found = RaggedPermutationWindows(np.array(sizes), window, seed, 4)(rows, indices)
    for row, index, items in zip(rows, indices, found):
        expected = PermutationWindows(sizes[row], window, seed, 4, int(row))(int(index))
        np.testing.assert_array_equal(items, expected)


def test_variants_give_other_streams_of_the_same_sizes() -> None:
    rows, sizes = np.array([0, 1, 0, 2]), np.array([5, 3, 8])
    variants = np.array([7, 0, 9, 7])
    found = RaggedPermutationWindows(sizes, 3, 1)(rows, np.arange(4), variants)
    for row, variant, index, items in zip(rows.tolist(), variants.tolist(), range(4), found):
        expected = PermutationWindows(int(sizes[row]), 3, 1, variant, row)
        words = RaggedPermutationWindows(sizes, 3, 1, variant)(np.array([row]), np.array([index]))[0]
        assert items.tolist() == expected(index).tolist() == words.tolist()


def test_permutations_are_uniform() -> None:
    counts = np.zeros((5, 5))
    for number in range(4000):
        counts[np.arange(5), random_permutation(5, 3, number)] += 1
    # 4 degrees of freedom per row; 18.5 is exceeded with probability 0.001.
    assert (((counts - 800) ** 2 / 800).sum(axis=1) < 18.5).all()


def test_keys_differ_between_words_and_seeds() -> None:
    keys = random_keys(np.arange(20)[:, None, None], np.arange(20)[:, None], np.arange(20))
    assert keys.shape == (20, 20, 20)
    assert len(np.unique(keys)) == keys.size
    assert random_keys(1, 2) == random_keys(1 + 2**64, 2)


def test_a_long_replay_is_not_recursive() -> None:
    windows = PermutationWindows(1501, 1500, 0)
    assert len(set(windows(1490).tolist())) == 1500


@pytest.mark.parametrize(("size", "window"), [(0, 1), (3, 0)])
def test_sizes_and_windows_below_one_are_refused(size: int, window: int) -> None:
    with pytest.raises(ValueError, match="at least 1"):
        PermutationWindows(size, window, 0)
    with pytest.raises(ValueError, match="at least 1"):
        RaggedPermutationWindows(np.array([size]), window, 0)


@pytest.mark.parametrize("count", [1, 3, 4, 41])
def test_draws_are_those_of_tensorflow(count: int) -> None:
    seeds = np.random.default_rng(0).integers(-(2**31), 2**31, (20, 2)).astype(np.int32)
    seeds[0] = 0
    seeds[1] = [-1, 2**31 - 1]
    with tf.device("CPU"):
        expected = [tf.random.stateless_uniform([count], seed) for seed in seeds]
    np.testing.assert_array_equal(uniform_draws(seeds, count), expected)
    assert uniform_draws(seeds, count).dtype == np.float32
