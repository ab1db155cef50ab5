"""Evaluation and embedding that go on in smaller blocks where the memory does not suffice."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

import tensorflow as tf

from ccp_dml.commands import warn
from ccp_dml.errors import UserError

_DIVISOR = 4
_NO_MEMORY = (tf.errors.ResourceExhaustedError, MemoryError)
T = TypeVar("T")


class SmallerBlocks:
    """Repeats a computation once in blocks of a quarter of the size, and keeps to them.

    Attributes:
        divisor: what the sizes of blocks are divided by: 1, or 4 once the memory did not suffice.
    """

    def __init__(self, batch_size: int) -> None:
        """Takes the flag `--evaluation_batch_size`, which messages name."""
        self._batch_size, self.divisor = batch_size, 1

    @property
    def batch_size(self) -> int:
        """Images per block now."""
        return max(1, self._batch_size // self.divisor)

    def __call__(self, compute: Callable[[], T]) -> T:
        """Returns what `compute` does, called a second time if the memory does not suffice.

        Raises:
            UserError: it does not suffice for the smaller blocks either.
        """
        if self.divisor == 1:
            try:
                return compute()
            except _NO_MEMORY:
                self.divisor = _DIVISOR
                warn(
                    f"--evaluation_batch_size={self._batch_size}: too little memory to embed or search; "
                    f"going on with {self.batch_size}"
                )
        try:
            return compute()
        except _NO_MEMORY as error:
            raise UserError(
                f"--evaluation_batch_size={self._batch_size}: too little memory to embed or search, "
                f"not even {self.batch_size} images at once; expected a smaller number"
            ) from error
