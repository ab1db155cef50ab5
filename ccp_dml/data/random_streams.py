"""Random numbers and permutations that are functions of their place in a stream.

Everything here follows from a hash of integers, its *words*: a seed, one of the stream numbers below, and
counters such as the step. It needs no state, gives the same numbers on every machine, and can be computed
for any place of a stream without the places before it.

A stream of permutations is made of *passes*. Pass `p` visits each of `n` items once, in its own random order.
The stream is cut into consecutive windows of `w` items. If `w <= n`, the items of a window are distinct: if
a window begins in pass `p` and ends in pass `p + 1`, the items of pass `p + 1` that are already in the window
are deferred, which means that they move to the place right after the window and keep their order. Therefore

* places `p * n … p * n + n - 1` of the stream hold every item exactly once, and
* window `i`, places `i * w … i * w + w - 1`, holds no item twice.

If `w > n`, nothing is deferred: a window repeats items, but none a second time before all were used.

Deferring changes only the first `w` places of a pass. If `n >= 2w`, the end of a pass, which decides what the
next pass defers, therefore follows from the random order of that pass alone. Otherwise the passes since the
last one that began together with a window are replayed, which are fewer than `w`.
"""

from __future__ import annotations

import functools
from typing import Any

import numpy as np

# Words that keep the random streams of one seed apart.
CLASS_ORDER = 1
IMAGES_OF_BATCHES = 2
IMAGES_OF_DRAWS = 3
AUGMENTATION = 4
REPRESENTATIVES = 5
ORDER_OF_IMAGES = 6
CLOSED_SET = 7
NOISY_IMAGES = 8
NOISY_LABELS = 9
CLASS_SPLIT = 10

_INCREMENT = np.uint64(0x9E3779B97F4A7C15)
_MULTIPLIERS = (np.uint64(0xBF58476D1CE4E5B9), np.uint64(0x94D049BB133111EB))
_SHIFTS = (np.uint64(30), np.uint64(27), np.uint64(31))
_MANTISSA_BITS = 24

IntArray = np.ndarray[Any, np.dtype[np.int64]]
KeyArray = np.ndarray[Any, np.dtype[np.uint64]]
FloatArray = np.ndarray[Any, np.dtype[np.float32]]


def random_keys(*words: Any) -> KeyArray:
    """Hashes words to 64 random bits: a counter-based random generator.

    Applies the generator SplitMix64 (Steele, Lea and Flood, OOPSLA 2014) once per word.

    Args:
        words: integers or integer arrays that broadcast together; integers count modulo 2^64.

    Returns:
        uint64 array of the broadcast shape, of at least one dimension.
    """
    return functools.reduce(_add_word, words, np.zeros(1, np.uint64))


def uniform_draws(*words: Any) -> FloatArray:
    """Hashes words to uniform numbers in [0, 1), multiples of 2^-24.

    Args:
        words: see `random_keys`.

    Returns:
        float32 array of the broadcast shape, of at least one dimension.
    """
    bits = random_keys(*words) >> np.uint64(64 - _MANTISSA_BITS)
    return bits.astype(np.float32) * np.float32(2.0**-_MANTISSA_BITS)


def random_permutation(size: int, *words: Any) -> IntArray:
    """Returns a random order of `0 … size - 1`, int64 [size], that depends on the words alone."""
    return np.argsort(random_keys(*words, np.arange(size)), kind="stable").astype(np.int64)


class PermutationWindows:
    """Windows of one stream of permutations; see the top of this module."""

    def __init__(self, size: int, window: int, *words: int):
        """Creates the stream.

        Args:
            size: number of items `n`, at least 1.
            window: window length `w`, at least 1.
            words: integers that identify the stream.

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
            pieces.append(self._ordered(number)[offset : offset + stop - start])
            start += len(pieces[-1])
        return np.concatenate(pieces)

    def _shuffle(self, number: int) -> IntArray:
        """Returns the order of pass `number` before deferring."""
        return random_permutation(self.size, *self.words, number)

    def _order(self, number: int) -> IntArray:
        """Returns the order of pass `number` after deferring."""
        if self.window > self.size:
            return self._shuffled(number)
        first = number
        while self._carried(first) and (
            first == number or self.size - self._carried(first + 1) < self.window
        ):
            first -= 1
        order = self._shuffled(first)
        for later in range(first + 1, number + 1):
            used = order[self.size - self._carried(later) :]
            order = self._defer(self._shuffled(later), used)
        return order

    def _carried(self, number: int) -> int:
        """Returns how many items of earlier passes are in the window in which pass `number` begins."""
        return number * self.size % self.window

    def _defer(self, order: IntArray, used: IntArray) -> IntArray:
        """Moves items that are in the window already behind it."""
        if not len(used):
            return order
        head = order[: self.window]
        fresh = ~np.isin(head, used)
        taken = fresh & (np.cumsum(fresh) <= self.window - len(used))
        return np.concatenate([head[taken], head[~taken], order[self.window :]])


class RaggedPermutationWindows:
    """Windows of many streams of different sizes, computed without a Python loop over streams.

    Stream `r` equals `PermutationWindows(sizes[r], window, *words, r)`.
    """

    def __init__(self, sizes: IntArray, window: int, *words: int, repeats_short: bool = False):
        """Creates the streams.

        Args:
            sizes: int64 [R], number of items of each stream, at least 1.
            window: window length of all streams, at least 1.
            words: integers that identify the set of streams.
            repeats_short: repeat the first pass of streams of less than a window of items, so that each
                window holds all of them. Where passes of different orders meet, it might lack some.

        Raises:
            ValueError: if a size or `window` is less than 1.
        """
        if window < 1 or (len(sizes) and sizes.min() < 1):
            raise ValueError(f"window and all sizes must be at least 1, found window={window}, sizes={sizes}")
        self.sizes, self.window = sizes.astype(np.int64), window
        self.words: tuple[Any, ...] = words
        self._repeats_short = repeats_short

    def __call__(self, rows: IntArray, indices: IntArray, variants: IntArray | None = None) -> IntArray:
        """Returns window `indices[i]` of stream `rows[i]` for every i, int64 [B, window].

        Args:
            rows: int64 [B], numbers of the streams.
            indices: int64 [B], number of the window of each.
            variants: int64 [B], a further word of each stream, placed before the number of the stream.
        """
        sizes = self.sizes[rows]
        places = indices[:, None] * self.window + np.arange(self.window)
        passes, offsets = np.divmod(places, sizes[:, None])
        if self._repeats_short:
            passes[sizes < self.window] = 0
        first = self._first_pass(sizes, passes[:, 0], offsets[:, 0])
        items = np.empty_like(places)
        used = np.full_like(places, -1)
        # Every stream is replayed from its own first pass on, all streams at once.
        for ahead in range(int((passes[:, -1] - first).max(initial=-1)) + 1):
            active = np.flatnonzero(first + ahead <= passes[:, -1])
            number, size = (first + ahead)[active], sizes[active]
            words = self.words if variants is None else (*self.words, variants[active])
            order, begin = self._shuffle(rows[active], number, words)
            if ahead:
                self._defer(order, begin, number, size, used[active])
            stream, place = np.nonzero(passes[active] == number[:, None])
            items[active[stream], place] = order[begin[stream] + offsets[active[stream], place]]
            used[active] = self._used(order, begin, number, size)
        return items

    def _first_pass(self, sizes: IntArray, passes: IntArray, offsets: IntArray) -> IntArray:
        """Returns the pass from which each stream is replayed: none of its places that count was deferred."""
        first, needed_from = passes.copy(), offsets
        while True:
            carried = first * sizes % self.window
            back = (sizes >= self.window) & (carried > 0) & (needed_from < self.window)
            if not back.any():
                return first
            first = first - back
            needed_from = np.where(back, sizes - carried, needed_from)

    def _shuffle(self, rows: IntArray, number: IntArray, words: tuple[Any, ...]) -> tuple[IntArray, IntArray]:
        """Returns the orders of passes before deferring, one after the other, and where each begins."""
        sizes = self.sizes[rows]
        begin = np.cumsum(sizes) - sizes
        owner = np.repeat(np.arange(len(rows)), sizes)
        item = np.arange(len(owner)) - begin[owner]
        keys = _add_word(random_keys(*words, rows, number)[owner], item)
        return item[np.lexsort((keys, owner))], begin

    def _defer(
        self, order: IntArray, begin: IntArray, number: IntArray, size: IntArray, used: IntArray
    ) -> None:
        """Moves items that are in the windows already behind them, in place."""
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
        """Returns the items of the windows that passes leave unfinished, [A, window], filled up with -1."""
        back = np.arange(self.window)
        carried = (number + 1) * size % self.window
        where = (begin + size)[:, None] - 1 - np.minimum(back, size[:, None] - 1)
        known = (back < carried[:, None]) & (size >= self.window)[:, None]
        return np.where(known, order[where], -1)


def _add_word(state: KeyArray, word: Any) -> KeyArray:
    """Returns the hash of the words so far and one more."""
    if isinstance(word, int):
        word = np.array([word % 2**64], np.uint64)
    state = state + (np.asarray(word).astype(np.uint64) + np.uint64(1)) * _INCREMENT
    state = (state ^ (state >> _SHIFTS[0])) * _MULTIPLIERS[0]
    state = (state ^ (state >> _SHIFTS[1])) * _MULTIPLIERS[1]
    return state ^ (state >> _SHIFTS[2])
