"""Batches computed a block of steps at a time."""

from __future__ import annotations

import functools
from collections.abc import Callable

import numpy as np

from ccp_dml.data.permutations import IntArray, PermutationWindows

_STEPS_AT_A_TIME = 32
# Orders of so many images are made at a time: a few megabytes.
_IMAGES_AT_A_TIME = 1 << 16


class StepBlocks:
    """A function of the step, computed for a block of steps at once.

    NumPy's calls cost more than the work that a single batch gives them. What a step gets does not depend on
    the blocks.
    """

    def __init__(self, compute: Callable[[IntArray], IntArray], images_per_step: float):
        """Wraps a function.

        Args:
            compute: from steps, int64 [S], to what each of them gets, [S, ...].
            images_per_step: number of images that a step looks at, by which blocks are made smaller.
        """
        self._compute = compute
        self._size = int(min(max(_IMAGES_AT_A_TIME // max(images_per_step, 1), 1), _STEPS_AT_A_TIME))
        # A block and its neighbour: steps are asked for in order, and again where a run goes on.
        self._block = functools.lru_cache(maxsize=2)(self._compute_block)

    def __call__(self, step: int) -> IntArray:
        """Returns what `step` gets."""
        number, place = divmod(step, self._size)
        return self._block(number)[place].copy()

    def _compute_block(self, number: int) -> IntArray:
        return self._compute(np.arange(number * self._size, (number + 1) * self._size))


def class_visits(order: PermutationWindows, steps: IntArray) -> tuple[IntArray, IntArray]:
    """The classes of batches, and how often each was visited before.

    Args:
        order: the stream of classes; a window is a batch.
        steps: int64 [S], consecutive or not.

    Returns:
        Classes and numbers of earlier visits, both int64 [S * classes per batch], step after step.
    """
    classes = np.concatenate([order(step) for step in steps.tolist()])
    places = (steps[:, None] * order.window + np.arange(order.window)).reshape(-1)
    return classes, places // order.size


def sample_major(images: IntArray, num_steps: int) -> IntArray:
    """Rows of images of one class, [S * N, M], as batches [S, M * N]: first the first image of every row."""
    samples = images.shape[1]
    return images.reshape(num_steps, -1, samples).transpose(0, 2, 1).reshape(num_steps, -1)
