"""Batches that are prepared once and kept in memory."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any


class KeptBatches:
    """Keeps the batches of the first whole pass and gives them again in later ones.

    A pass that is broken off keeps nothing.
    """

    def __init__(self, batches: Iterable[Any]) -> None:
        """Takes the batches, which are iterated until one pass was whole.

        Args:
            batches: finite; the same in every pass.
        """
        self._batches = batches
        self._kept: list[Any] | None = None

    def __iter__(self) -> Iterator[Any]:
        if self._kept is not None:
            yield from self._kept
            return
        kept = []
        for batch in self._batches:
            kept.append(batch)
            yield batch
        self._kept = kept
