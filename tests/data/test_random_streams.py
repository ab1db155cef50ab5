"""Hashed keys, uniform numbers, permutations, and windows of distinct items."""

from __future__ import annotations

import functools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ccp_dml.data.random_streams import (
    AUGMENTATION,
    PermutationWindows,
    RaggedPermutationWindows,
    random_keys,
    random_permutation,
    uniform_draws,
)

quick = settings(max_examples=25, deadline=None, derandomize=True)


def sequential_stream(size: int, window: int, words: tuple[int, ...], num_windows: int) -> list[list[int]]:
    """The definition, item by item: windows take items from a queue and skip those already taken."""
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


def test_uniform_draws_are_multiples_of_a_float32_step_below_one() -> None:
    draws = uniform_draws(3, np.arange(100)[:, None], np.arange(1000))
    assert draws.dtype == np.float32
    assert draws.shape == (100, 1000)
    assert 0 <= draws.min() < 1e-4
    assert 1 - 1e-4 < draws.max() < 1
    np.testing.assert_array_equal(draws * 2**24, np.round(draws * 2**24))


def test_keys_and_draws_equal_their_definition_in_python_integers() -> None:
    def mixed(state: int, word: int) -> int:
        state = (state + (word + 1) * 0x9E3779B97F4A7C15) % 2**64
        state = (state ^ (state >> 30)) * 0xBF58476D1CE4E5B9 % 2**64
        state = (state ^ (state >> 27)) * 0x94D049BB133111EB % 2**64
        return state ^ (state >> 31)

    places, numbers = np.arange(3)[:, None], np.arange(5)
    expected = np.array(
        [
            [functools.reduce(mixed, (2**70 - 1, AUGMENTATION, 3, place, number), 0) for number in range(5)]
            for place in range(3)
        ],
        np.uint64,
    )
    words = (2**70 - 1, AUGMENTATION, 3, places, numbers)
    np.testing.assert_array_equal(random_keys(*words), expected)
    np.testing.assert_array_equal(uniform_draws(*words) * 2**24, (expected >> np.uint64(40)).astype(float))


@pytest.mark.parametrize("axis", ["seed", "step", "place", "draw"])
def test_uniform_draws_are_uniform_and_independent_along_each_word(axis: str) -> None:
    size = 40_000
    words = {"seed": 7, "step": 11, "place": 5, "draw": 2, axis: np.arange(size)}
    draws = uniform_draws(words["seed"], AUGMENTATION, words["step"], words["place"], words["draw"])
    # 15 degrees of freedom: 37.7 is exceeded with probability 0.001.
    assert chi_square(np.bincount((draws * 16).astype(int), minlength=16)) < 37.7
    # Pairs of neighbours fill the unit square evenly. 63 degrees of freedom: 103.4.
    cells = (draws[:-1] * 8).astype(int) * 8 + (draws[1:] * 8).astype(int)
    assert chi_square(np.bincount(cells[::2], minlength=64)) < 103.4


@pytest.mark.parametrize("pair", [("step", "place"), ("step", "draw"), ("place", "draw"), ("seed", "step")])
def test_uniform_draws_of_two_words_are_independent(pair: tuple[str, str]) -> None:
    """Equal numbers of the two words, which a weak hash would confuse, give unrelated draws."""
    numbers = np.arange(20_000)
    words = {"seed": 7, "step": 11, "place": 5, "draw": 2}
    first, second = ({**words, name: numbers} for name in pair)
    draws = [
        uniform_draws(given["seed"], AUGMENTATION, given["step"], given["place"], given["draw"])
        for given in (first, second)
    ]
    cells = (draws[0] * 8).astype(int) * 8 + (draws[1] * 8).astype(int)
    # 63 degrees of freedom: 103.4 is exceeded with probability 0.001.
    assert chi_square(np.bincount(cells, minlength=64)) < 103.4


def chi_square(counts: np.ndarray) -> float:
    """The statistic of a test for equal frequencies."""
    expected = counts.sum() / len(counts)
    return float(((counts - expected) ** 2 / expected).sum())
