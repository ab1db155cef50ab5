"""What looks at the scores of a run and acts on them, in the one right order."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import tensorflow as tf

from ccp_dml.training.projections import AlternatingProjections
from ccp_dml.training.schedules import Schedule
from ccp_dml.training.stopping import EarlyStopping


class Controllers:
    """Early stopping, the learning-rate schedule and the alternating projections of a run, each optional."""

    def __init__(
        self,
        *,
        stopping: EarlyStopping | None = None,
        schedule: Schedule | None = None,
        projections: AlternatingProjections | None = None,
    ) -> None:
        self._stopping, self._schedule, self._projections = stopping, schedule, projections

    @property
    def state(self) -> dict[str, Any]:
        """What has to be checkpointed, by name."""
        return {
            "stopping": self._stopping,
            "schedule": self._schedule,
            "projections": self._projections,
        }

    @property
    def should_stop(self) -> bool:
        """Whether early stopping has decided so."""
        return self._stopping is not None and self._stopping.should_stop

    @property
    def best_epoch(self) -> int | None:
        """Epoch (from 0) with the best score; None before the first score or without early stopping."""
        if self._stopping is None or int(self._stopping.best_epoch) < 0:
            return None
        return int(self._stopping.best_epoch)

    @property
    def every_step(self) -> bool:
        """Whether the score of every single step is looked at."""
        return self._projections is not None and self._projections.options.step_at_batch

    @property
    def after_each_step(self) -> Callable[[tf.Tensor, tf.Tensor], None] | None:
        """What takes note of the labels and embeddings of every step, in tensor code; None without."""
        memory = None if self._projections is None else self._projections.memory
        return None if memory is None else memory.note

    @property
    def logs(self) -> dict[str, Any]:
        """Problem instance and proximal coefficient as they are now."""
        if self._projections is None:
            return {}
        return {
            "problem_instance": int(self._projections.instance),
            "proximal_coefficient": float(self._projections.proximal_coefficient),
        }

    def set_learning_rate(self, rate: tf.Variable, step: tf.Tensor) -> None:
        """Sets the learning rate of a step as the schedule says, if there is one; tensor code."""
        if self._schedule is not None:
            rate.assign(self._schedule(step))

    def begin(self) -> None:
        """Begins training, or training proper after a warm-up: chooses the first proxies."""
        if self._projections is not None:
            self._projections.begin()

    def after_validation(self, epoch: int, logs: dict[str, Any]) -> None:
        """Acts on the scores of an epoch; adds `proxy_staleness` to the logs where it was measured.

        Args:
            epoch: number of the epoch, from 0.
            logs: logs of this epoch; validation scores are prefixed by `val_`.

        Raises:
            ValueError: if a monitored score is not among the logs.
        """
        # First the best weights are kept, with the proxies that belong to them; then the proxies may change.
        if self._stopping is not None:
            self._stopping.update(_score(logs, self._stopping.monitor), epoch)
        if self._schedule is not None and self._schedule.monitor is not None:
            self._schedule.update(_score(logs, self._schedule.monitor))
        if self._projections is not None and not self.every_step:
            self._projections.update(_score(logs, self._projections.options.monitor))
            if self._projections.last_staleness is not None:
                logs["proxy_staleness"] = self._projections.last_staleness

    def after_steps(self, scores: dict[str, float]) -> None:
        """Acts on the scalars of a step, if every step is looked at.

        Raises:
            ValueError: if the monitored score is not among them.
        """
        if self._projections is not None and self.every_step:
            self._projections.update(_score(scores, self._projections.options.monitor))

    def end(self) -> None:
        """Ends training: restores the best weights."""
        if self._stopping is not None:
            self._stopping.restore_best()


def _score(logs: dict[str, Any], monitor: str) -> float:
    for name in (f"val_{monitor}", monitor):
        if name in logs:
            return float(logs[name])
    raise ValueError(f"The monitored score {monitor!r} is not among the logs {', '.join(sorted(logs))}.")
