"""Which part of every batch a reader makes."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from ccp_dml.data.permutations import IntArray


@dataclass(frozen=True)
class Shard:
    """One of several equal parts of every batch, cut by position, and the pieces that it is given out in.

    Attributes:
        index: number of the part, from 0.
        count: number of parts.
        pieces: number of equal pieces of the part; each is an element of the stream.
    """

    index: int = 0
    count: int = 1
    pieces: int = 1

    def rows(self, batch_size: int) -> IntArray:
        """Positions of the part in a batch, int64 [batch_size / count], ascending.

        Raises:
            ValueError: if the batch cannot be divided into the pieces of all parts.
        """
        pieces = self.count * self.pieces
        if batch_size % pieces:
            raise ValueError(f"A batch of {batch_size} images cannot be divided into {pieces} equal parts.")
        size = batch_size // self.count
        return np.arange(self.index * size, (self.index + 1) * size)


WHOLE = Shard()
