"""Where the time of a run goes."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator

TRAINING, VALIDATION, RESETS = "training", "validation", "resets"
_PARTS = (TRAINING, VALIDATION, RESETS)


class WallTime:
    """Seconds that the parts of a run took in this process, since it was made.

    Attributes:
        data_wait: the seconds of training in which a step waited for its batch.
    """

    def __init__(self) -> None:
        self._started = time.perf_counter()
        self._seconds = dict.fromkeys(_PARTS, 0.0)
        self.data_wait = 0.0

    @contextlib.contextmanager
    def measured(self, part: str) -> Iterator[None]:
        """Adds the time inside the context to a part: 'training', 'validation' or 'resets'."""
        started = time.perf_counter()
        try:
            yield
        finally:
            self._seconds[part] += time.perf_counter() - started

    def shares(self) -> dict[str, float]:
        """Shares of the time so far, each in [0, 1].

        Returns:
            `training`, `validation`, `resets` and `other`, whose sum is 1, and `data_wait`, which is a part
            of `training`.
        """
        total = max(time.perf_counter() - self._started, 1e-9)
        shares = {part: seconds / total for part, seconds in self._seconds.items()}
        return {**shares, "other": 1.0 - sum(shares.values()), "data_wait": self.data_wait / total}

    def __str__(self) -> str:
        shares = self.shares()
        wait = shares.pop("data_wait")
        parts = [f"{part} {share:.1%}" for part, share in shares.items()]
        parts[0] += f" ({wait:.1%} waiting for data)"
        return "time: " + ", ".join(parts)
