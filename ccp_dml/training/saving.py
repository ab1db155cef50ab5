"""When a run is saved: at the end of every epoch, on interruption, and in between by steps or by minutes."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from typing import Any

from ccp_dml.training.checkpoints import Checkpoints


class Saver:
    """Saves a run, and knows when it is time to.

    Durations are those of a clock that never goes back, so a change of the computer's time does no harm.
    """

    def __init__(
        self,
        checkpoints: Checkpoints | None,
        *,
        every_steps: int = 0,
        every_minutes: float = 0.0,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """Creates the schedule.

        Args:
            checkpoints: where to save; None: nowhere.
            every_steps: steps since the last checkpoint that make one due; 0: none do.
            every_minutes: minutes since then that do; 0: none do.
            clock: seconds, from any beginning.

        Raises:
            ValueError: if a number is negative.
        """
        if every_steps < 0 or every_minutes < 0:
            raise ValueError(
                f"Checkpoints every {every_steps} steps or {every_minutes} minutes; at least 0 is expected."
            )
        self._checkpoints = checkpoints
        self._every_steps, self._every_seconds, self._clock = every_steps, 60.0 * every_minutes, clock
        self._step, self._time = 0, clock()

    def track(self, state: Mapping[str, Any]) -> None:
        """Says what is saved: trackable objects by name."""
        if self._checkpoints is not None:
            self._checkpoints.track(**state)

    def restore(self) -> bool:
        """Reads the newest checkpoint; see `Checkpoints.restore`. Returns whether there is one."""
        return self._checkpoints is not None and self._checkpoints.restore() is not None

    @property
    def latest(self) -> str | None:
        """Path of the newest checkpoint, None if there is none."""
        return None if self._checkpoints is None else self._checkpoints.latest

    def begin(self, step: int) -> None:
        """Says at which step training begins or goes on."""
        self._step, self._time = step, self._clock()

    def due(self, step: int) -> bool:
        """Whether it is time for a checkpoint between two epochs' ends."""
        if self._checkpoints is None:
            return False
        by_steps = 0 < self._every_steps <= step - self._step
        return by_steps or 0 < self._every_seconds <= self._clock() - self._time

    def save(self, step: int, best_step: int | None = None) -> str | None:
        """Saves; see `Checkpoints.save`. Returns the path, None if there is nowhere to save."""
        if self._checkpoints is None:
            return None
        path = self._checkpoints.save(step, best_step)
        self.begin(step)
        return path
