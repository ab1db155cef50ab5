"""Words that keep the random streams of one seed apart."""

from __future__ import annotations

import functools
from typing import Any

import numpy as np
import numpy.typing as npt

CLASS_ORDER = 1
IMAGES_OF_BATCHES = 2
IMAGES_OF_DRAWS = 3
AUGMENTATION = 4
REPRESENTATIVES = 5
ORDER_OF_IMAGES = 6
CLOSED_SET = 7
NOISY_IMAGES = 8
NOISY_LABELS = 9


_INCREMENT = np.uint64(0x9E3779B97F4A7C15)
_MULTIPLIERS = (np.uint64(0xBF58476D1CE4E5B9), np.uint64(0x94D049BB133111EB))
_SHIFTS = (np.uint64(30), np.uint64(27), np.uint64(31))

IntArray = np.ndarray[Any, np.dtype[np.int64]]
KeyArray = np.ndarray[Any, np.dtype[np.uint64]]


def _mix(state: KeyArray) -> KeyArray:
    state = (state ^ (state >> _SHIFTS[0])) * _MULTIPLIERS[0]
    state = (state ^ (state >> _SHIFTS[1])) * _MULTIPLIERS[1]
    return state ^ (state >> _SHIFTS[2])


def random_keys(*words: Any) -> KeyArray:
    """64 random bits for every combination of words: a counter-based random generator.

    The output function of SplitMix64 (Steele, Lea & Flood, OOPSLA 2014), applied once per word.

    Args:
        words: integers or integer arrays that broadcast together; negative ones count modulo 2^64.

    Returns:
        uint64 array of the broadcast shape (at least one dimension).
    """
    state = np.zeros(1, np.uint64)
    for word in words:
        if isinstance(word, int):
            word = np.array([word % 2**64], np.uint64)
        state = _mix(state + (np.asarray(word).astype(np.uint64) + np.uint64(1)) * _INCREMENT)
    return state


def random_permutation(size: int, *words: Any) -> IntArray:
    """Random order of `0 … size - 1`, int64 [size], a function of the words alone."""
    return np.argsort(random_keys(*words, np.arange(size)), kind="stable").astype(np.int64)


class PermutationWindows:
    """Windows of one stream of permutations, as described at the top of this module."""

    def __init__(self, size: int, window: int, *words: int):
        """Creates the stream.

        Args:
            size: number of items `n`, at least 1.
            window: window length `w`, at least 1.
            words: integers that name the stream; equal words give equal streams.

        Raises:
            ValueError: if `size` or `window` is less than 1.
        """
        if size < 1 or window < 1:
            raise ValueError(f"size and window must be at least 1, found size={size}, window={window}")
        self.size, self.window, self.words = size, window, words
        self._shuffled = functools.lru_cache(maxsize=2)(self._shuffle)
        self._ordered = functools.lru_cache(maxsize=2)(self._order)

    def __call__(self, index: int) -> IntArray:
        """Returns window `index` (0, 1, …) of the stream, int64 [window]."""
        start, stop = index * self.window, (index + 1) * self.window
        pieces = []
        while start < stop:
            number, offset = divmod(start, self.size)
            piece = self._ordered(number)[offset : offset + stop - start]
            pieces.append(piece)
            start += len(piece)
        return np.concatenate(pieces)

    def _shuffle(self, number: int) -> IntArray:
        return random_permutation(self.size, *self.words, number)

    def _order(self, number: int) -> IntArray:
        """Pass `number`, after deferring."""
        if self.window > self.size:
            return self._shuffled(number)
        first = number
        while self._started(first) and (
            first == number or self.size - self._started(first + 1) < self.window
        ):
            first -= 1
        order = self._shuffled(first)
        for later in range(first + 1, number + 1):
            started = self._started(later)
            order = self._defer(self._shuffled(later), order[self.size - started :])
        return order

    def _started(self, number: int) -> int:
        """How many items the window in which pass `number` begins has from the pass before."""
        return number * self.size % self.window

    def _defer(self, order: IntArray, used: IntArray) -> IntArray:
        if not len(used):
            return order
        head = order[: self.window]
        fresh = ~np.isin(head, used)
        taken = fresh & (np.cumsum(fresh) <= self.window - len(used))
        return np.concatenate([head[taken], head[~taken], order[self.window :]])


class RaggedPermutationWindows:
    """The windows of many streams of different sizes at once; stream `r` equals `PermutationWindows`.

    That is `PermutationWindows(sizes[r], window, *words, r)`, without a Python loop over streams.
    """

    def __init__(self, sizes: IntArray, window: int, *words: int):
        """Creates the streams.

        Args:
            sizes: int64 [R], number of items of each stream, at least 1.
            window: window length of all streams, at least 1.
            words: integers that name the streams together.

        Raises:
            ValueError: if a size or `window` is less than 1.
        """
        if window < 1 or (len(sizes) and sizes.min() < 1):
            raise ValueError(f"window and all sizes must be at least 1, found window={window}, sizes={sizes}")
        self.sizes, self.window = sizes.astype(np.int64), window
        self.words: tuple[Any, ...] = words

    def __call__(self, rows: IntArray, indices: IntArray, variants: IntArray | None = None) -> IntArray:
        """Returns window `indices[i]` of stream `rows[i]` for every i: int64 [len(rows), window].

        Args:
            rows: int64 [B], which streams.
            indices: int64 [B], which window of each.
            variants: int64 [B], words that name other orders of each stream; None: the stream itself.
        """
        sizes, window = self.sizes[rows], self.window
        positions = indices[:, None] * window + np.arange(window)
        passes, places = np.divmod(positions, sizes[:, None])
        first = self._first_pass(sizes, passes[:, 0], places[:, 0])
        items = np.empty_like(positions)
        used = np.full_like(positions, -1)
        for ahead in range(int((passes[:, -1] - first).max(initial=-1)) + 1):
            active = np.flatnonzero(first + ahead <= passes[:, -1])
            number, size = (first + ahead)[active], sizes[active]
            words = self.words if variants is None else (*self.words, variants[active])
            order, begin = self._shuffle(rows[active], number, words)
            if ahead:
                self._defer(order, begin, number, size, used[active])
            here, place = np.nonzero(passes[active] == number[:, None])
            items[active[here], place] = order[begin[here] + places[active[here], place]]
            used[active] = self._used(order, begin, number, size)
        return items

    def _first_pass(self, sizes: IntArray, passes: IntArray, places: IntArray) -> IntArray:
        """The pass to begin with: from the place on that is needed of it, deferring has changed nothing."""
        first, needed_from = passes.copy(), places
        while True:
            started = first * sizes % self.window
            back = (sizes >= self.window) & (started > 0) & (needed_from < self.window)
            if not back.any():
                return first
            first = first - back
            needed_from = np.where(back, sizes - started, needed_from)

    def _shuffle(self, rows: IntArray, number: IntArray, words: tuple[Any, ...]) -> tuple[IntArray, IntArray]:
        """Returns the order of pass `number[i]` of stream `rows[i]` for every i, and where each begins."""
        sizes = self.sizes[rows]
        begin = np.cumsum(sizes) - sizes
        owner = np.repeat(np.arange(len(rows)), sizes)
        item = np.arange(len(owner)) - begin[owner]
        state = random_keys(*words, rows, number)
        keys = _mix(state[owner] + (item.astype(np.uint64) + np.uint64(1)) * _INCREMENT)
        return item[np.lexsort((keys, owner))], begin

    def _defer(
        self, order: IntArray, begin: IntArray, number: IntArray, size: IntArray, used: IntArray
    ) -> None:
        changed = (size >= self.window) & (number * size % self.window > 0)
        if not changed.any():
            return
        used = used[changed]
        where = begin[changed][:, None] + np.arange(self.window)
        head = order[where]
        fresh = (head[:, :, None] != used[:, None, :]).all(axis=2)
        wanted = (used < 0).sum(axis=1, keepdims=True)
        taken = fresh & (np.cumsum(fresh, axis=1) <= wanted)
        order[where] = np.take_along_axis(head, np.argsort(~taken, axis=1, kind="stable"), axis=1)

    def _used(self, order: IntArray, begin: IntArray, number: IntArray, size: IntArray) -> IntArray:
        """Items [A, window] of the window that the pass leaves unfinished; -1 where it has none."""
        back = np.arange(self.window)
        started = (number + 1) * size % self.window
        where = (begin + size)[:, None] - 1 - np.minimum(back, size[:, None] - 1)
        known = (back < started[:, None]) & (size >= self.window)[:, None]
        return np.where(known, order[where], -1)


_ROUNDS = 10
_MULTIPLIERS_of_uniform_draws = np.uint64(0xD2511F53), np.uint64(0xCD9E8D57)
_KEY_INCREMENTS = 0x9E3779B9, 0xBB67AE85
_KEY_OF_SEEDS = 0x3EC8F720, 0x02461E29
_LOW, _HALF = np.uint64(0xFFFFFFFF), np.uint64(32)
_MANTISSA, _ONE = np.uint32(0x7FFFFF), np.uint32(0x3F800000)

Words = npt.NDArray[np.uint64]


def uniform_draws(seeds: npt.NDArray[Any], count: int) -> npt.NDArray[np.float32]:
    """Uniform numbers in [0, 1).

    Args:
        seeds: int32 [n, 2].
        count: numbers of each seed.

    Returns:
        float32 [n, count]; row i is `tf.random.stateless_uniform([count], seeds[i])` of a processor.
    """
    words = seeds.astype(np.int64).astype(np.uint64)
    counter = [words[:, 0] & _LOW, words[:, 0] >> _HALF, words[:, 1] & _LOW, words[:, 1] >> _HALF]
    key = [np.uint64(part) for part in _KEY_OF_SEEDS]
    first, second, third, fourth = (part[:, None] for part in _philox(counter, key))
    numbers = np.broadcast_to(np.arange(-(-count // 4), dtype=np.uint64), (len(seeds), -(-count // 4)))
    blocks = _philox([numbers, np.zeros_like(numbers), third, fourth], [first, second])
    bits = np.stack(blocks, -1).reshape(len(seeds), -1)[:, :count].astype(np.uint32)
    return ((bits & _MANTISSA) | _ONE).view(np.float32) - np.float32(1)


def _philox(counter: list[Words], key: list[Any]) -> list[Words]:
    """Four words of 32 bits for every counter of four words, each in a uint64."""
    for _ in range(_ROUNDS):
        even, odd = (
            counter[0] * _MULTIPLIERS_of_uniform_draws[0],
            counter[2] * _MULTIPLIERS_of_uniform_draws[1],
        )
        counter = [
            (odd >> _HALF) ^ counter[1] ^ key[0],
            odd & _LOW,
            (even >> _HALF) ^ counter[3] ^ key[1],
            even & _LOW,
        ]
        key = [(part + np.uint64(increment)) & _LOW for part, increment in zip(key, _KEY_INCREMENTS)]
    return counter
