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

    def seconds(self, part: str) -> float:
        """How long a part took so far: 'training', 'validation' or 'resets'."""
        return self._seconds[part]

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


class EpochSpeed:
    """How fast an epoch is trained, as far as this process trained it.

    Attributes:
        images: number of images trained on.
    """

    def __init__(self, wall_time: WallTime) -> None:
        """Begins an epoch; what `wall_time` measures as training from now on belongs to it."""
        self._wall_time = wall_time
        self._seconds_before, self._wait_before = wall_time.seconds(TRAINING), wall_time.data_wait
        self.images = 0

    @property
    def logs(self) -> dict[str, float]:
        """`images_per_second`, and `data_wait_share`: the share of that time spent waiting for batches."""
        seconds = self._wall_time.seconds(TRAINING) - self._seconds_before
        wait = self._wall_time.data_wait - self._wait_before
        return {"images_per_second": self.images / seconds, "data_wait_share": wait / seconds}
