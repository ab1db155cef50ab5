"""Learning-rate schedules.

A schedule maps the number of steps since the end of the warm-up to the base learning rate, in tensor code,
and is told the monitored score after every validation. What it remembers is in its variables, so in the
checkpoint.
"""

from __future__ import annotations

from typing import Protocol

import tensorflow as tf


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
