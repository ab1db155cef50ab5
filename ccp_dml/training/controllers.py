"""What looks at the scores of a run and acts on them, in the one right order."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any, Protocol

import tensorflow as tf

from ccp_dml.distributed.replicas import WeightSnapshot
from ccp_dml.projections.projections import AlternatingProjections


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


class Schedule(Protocol):
    """What the trainer expects of a schedule."""

    monitor: str | None

    def __call__(self, step: tf.Tensor) -> tf.Tensor:
        """Returns the learning rate of a step: scalar float32 from scalar int64."""

    def update(self, score: float) -> bool:
        """Takes note of a validation score; returns whether the rate changed."""


class ExponentialDecay(tf.Module):
    """`rate * decay_rate ** (step / decay_steps)`, the exponent rounded down if `staircase`."""

    monitor: str | None = None

    def __init__(
        self, learning_rate: float, *, decay_rate: float, decay_steps: int, staircase: bool = False
    ) -> None:
        """Creates the schedule.

        Args:
            learning_rate: rate of the first step, positive.
            decay_rate: factor per `decay_steps` steps, in (0, 1].
            decay_steps: at least 1.
            staircase: keep the rate constant between multiples of `decay_steps`.

        Raises:
            ValueError: if a number is out of its range.
        """
        super().__init__(name="exponential_decay")
        if not 0 < decay_rate <= 1:
            raise ValueError(f"decay_rate of the learning rate is {decay_rate}; one in (0, 1] is expected.")
        if decay_steps < 1:
            raise ValueError(f"decay_steps of the learning rate is {decay_steps}; at least 1 is expected.")
        self._schedule = tf.keras.optimizers.schedules.ExponentialDecay(
            learning_rate, decay_steps, decay_rate, staircase
        )

    def __call__(self, step: tf.Tensor) -> tf.Tensor:
        """Returns the learning rate of a step."""
        return self._schedule(step)

    def update(self, score: float) -> bool:
        """Does nothing: the rate depends on the step alone."""
        return False


class ReduceOnPlateau(tf.Module):
    """Multiplies the rate by `factor` after `patience` validations without improvement.

    Attributes:
        monitor: name of the score in the epoch logs.
        learning_rate: float32 variable, the present rate.
        best: float64 variable, the best score so far, negated if higher is better.
        stale: int64 variable, validations since the last improvement or reduction.
    """

    def __init__(
        self,
        learning_rate: float,
        *,
        factor: float = 0.5,
        patience: int = 3,
        min_learning_rate: float = 0.0,
        min_delta: float = 1e-4,
        monitor: str | None = "map_at_r",
        stop_at_min: bool = False,
    ) -> None:
        """Creates the schedule.

        Args:
            learning_rate: initial rate, positive.
            factor: in (0, 1).
            patience: validations without improvement before a reduction, at least 1.
            min_learning_rate: the rate never goes below.
            min_delta: a score counts as better if it is so by more than this.
            monitor: name of the score in the epoch logs.
            stop_at_min: lower scores are better.

        Raises:
            ValueError: if a number is out of its range.
        """
        super().__init__(name="reduce_on_plateau")
        if not 0 < factor < 1:
            raise ValueError(f"The plateau factor is {factor}; one in (0, 1) is expected.")
        if patience < 1:
            raise ValueError(f"The plateau patience is {patience}; at least 1 is expected.")
        self.monitor = monitor
        self._factor, self._patience = factor, patience
        self._min_learning_rate, self._min_delta = min_learning_rate, min_delta
        self._sign = 1.0 if stop_at_min else -1.0
        self.learning_rate = tf.Variable(
            learning_rate, trainable=False, dtype=tf.float32, name="learning_rate"
        )
        self.best = tf.Variable(float("inf"), trainable=False, dtype=tf.float64, name="best")
        self.stale = tf.Variable(0, trainable=False, dtype=tf.int64, name="stale")

    def __call__(self, step: tf.Tensor) -> tf.Tensor:
        """Returns the present rate."""
        return self.learning_rate.read_value()

    def update(self, score: float) -> bool:
        """Takes note of a validation score; returns whether the rate was reduced."""
        quantity = self._sign * score
        if quantity < float(self.best) - self._min_delta:
            self.best.assign(quantity)
            self.stale.assign(0)
            return False
        self.stale.assign_add(1)
        if int(self.stale) < self._patience:
            return False
        self.stale.assign(0)
        old = float(self.learning_rate)
        self.learning_rate.assign(max(old * self._factor, min(old, self._min_learning_rate)))
        return float(self.learning_rate) < old


class EarlyStopping(tf.Module):
    """Watches a score, keeps the weights of its best value, and says when to stop.

    Attributes:
        monitor: name of the score in the epoch logs.
        best_score: float64 variable, NaN before the first score.
        best_epoch: int64 variable, number of the validation (from 0) with the best score, -1 before.
        stale: int64 variable, validations since then.
    """

    def __init__(
        self,
        variables: Sequence[tf.Variable],
        *,
        patience: int | None,
        monitor: str = "map_at_r",
        stop_at_min: bool = False,
        min_delta: float = 0.0,
    ) -> None:
        """Creates the controller.

        Args:
            variables: what to keep at its best: all weights of the model, batch statistics included, and of
                the loss; none, if training is to end with the weights of its last step.
            patience: validations without improvement before stopping, at least 1; None never stops, but still
                keeps the best weights.
            monitor: name of the score in the epoch logs.
            stop_at_min: lower scores are better.
            min_delta: a score counts as better if it is so by more than this.

        Raises:
            ValueError: if the patience is below 1 or `min_delta` negative.
        """
        super().__init__(name="early_stopping")
        if patience is not None and patience < 1:
            raise ValueError(f"The patience of early stopping is {patience}; at least 1 is expected.")
        if min_delta < 0:
            raise ValueError(f"min_delta of early stopping is {min_delta}; it cannot be negative.")
        self.monitor = monitor
        self._patience, self._min_delta = patience, min_delta
        self._sign = 1.0 if stop_at_min else -1.0
        self.best_score = tf.Variable(float("nan"), trainable=False, dtype=tf.float64, name="best_score")
        self.best_epoch = tf.Variable(-1, trainable=False, dtype=tf.int64, name="best_epoch")
        self.stale = tf.Variable(0, trainable=False, dtype=tf.int64, name="stale")
        self._best_weights = WeightSnapshot(variables, name="best_weights")

    @property
    def should_stop(self) -> bool:
        """Whether the patience is used up."""
        return self._patience is not None and int(self.stale) >= self._patience

    def update(self, score: float, epoch: int) -> bool:
        """Takes note of the score of an epoch.

        Args:
            score: the monitored score; NaN is never better.
            epoch: number of the epoch, from 0.

        Returns:
            Whether training should stop.
        """
        if self._is_better(score):
            self.best_score.assign(score)
            self.best_epoch.assign(epoch)
            self.stale.assign(0)
            self._best_weights.take()
        else:
            self.stale.assign_add(1)
        return self.should_stop

    def _is_better(self, score: float) -> bool:
        if int(self.best_epoch) < 0:
            return not math.isnan(score)
        return self._sign * score < self._sign * float(self.best_score) - self._min_delta

    def restore_best(self) -> bool:
        """Gives the variables their best values; returns False if no score was seen yet."""
        if int(self.best_epoch) < 0:
            return False
        self._best_weights.put_back()
        return True
