"""Parts of the training loop that look at scores and act: early stopping and learning-rate schedules.

The alternating projections are another one (`ccp_dml.projections`). Unlike Keras callbacks, controllers are
in the checkpoint, so a run that was interrupted decides as one that was not.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import tensorflow as tf

from ccp_dml.distributed.replicas import WeightSnapshot
from ccp_dml.training.options import DEFAULT_MONITOR, OptimizerOptions


class Controller(tf.Module):
    """Base of all controllers; every hook does nothing."""

    @property
    def watches_batches(self) -> bool:
        """Whether `after_step` has to be called."""
        return False

    @property
    def watches_every_step(self) -> bool:
        """Whether `after_steps` has to be called after each single step."""
        return False

    @property
    def should_stop(self) -> bool:
        """Whether training ends with this epoch."""
        return False

    @property
    def best_epoch(self) -> int | None:
        """Epoch (from 0) with the best score; None if unknown."""
        return None

    @property
    def logs(self) -> dict[str, Any]:
        """Entries of the epoch logs, as they are before the scores of the epoch are looked at."""
        return {}

    def begin(self) -> None:
        """Called before the first step, and again before the first step after a warm-up."""

    def before_step(self, learning_rate: tf.Variable, step: tf.Tensor) -> None:
        """Called before each step, in tensor code, with the steps since the warm-up: int64 scalar."""

    def after_step(self, labels: tf.Tensor, embeddings: tf.Tensor) -> None:
        """Called after each finite step, in tensor code, if `watches_batches`."""

    def after_steps(self, scores: Mapping[str, float]) -> None:
        """Called with the mean scalars of each chunk of steps after the warm-up."""

    def after_validation(self, epoch: int, logs: dict[str, Any]) -> None:
        """Called with the logs of each epoch after the warm-up, to which it may add.

        Raises:
            ValueError: if a monitored score is not among them.
        """

    def end(self) -> None:
        """Called after the last step."""


def monitored_score(logs: Mapping[str, Any], monitor: str) -> float:
    """The score of that name among the epoch logs, of the validation if there is one.

    Raises:
        ValueError: if there is no such score.
    """
    for name in (f"val_{monitor}", monitor):
        if name in logs:
            return float(logs[name])
    raise ValueError(f"The monitored score {monitor!r} is not among the logs {', '.join(sorted(logs))}.")


class EarlyStopping(Controller):
    """Ends training when a score stops improving, and restores the weights of its best value.

    Attributes:
        monitor: name of the score in the epoch logs.
        best_score: float64 variable, NaN before the first score.
        epoch_of_best: int64 variable, the epoch (from 0) with the best score, -1 before.
        stale: int64 variable, validations since then.
    """

    def __init__(
        self,
        variables: Sequence[tf.Variable],
        *,
        patience: int | None,
        monitor: str = DEFAULT_MONITOR,
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
            min_delta: a score counts as better if it is so by more than this, non-negative.

        Raises:
            ValueError: if a number is out of its range.
        """
        super().__init__(name="early_stopping")
        if patience is not None and patience < 1:
            raise ValueError(f"patience={patience}: expected at least 1, or None")
        if min_delta < 0:
            raise ValueError(f"min_delta={min_delta}: expected at least 0")
        self.monitor = monitor
        self._patience, self._min_delta = patience, min_delta
        self._sign = 1.0 if stop_at_min else -1.0
        self.best_score = tf.Variable(float("nan"), trainable=False, dtype=tf.float64, name="best_score")
        self.epoch_of_best = tf.Variable(-1, trainable=False, dtype=tf.int64, name="best_epoch")
        self.stale = tf.Variable(0, trainable=False, dtype=tf.int64, name="stale")
        self._best_weights = WeightSnapshot(variables, name="best_weights")

    @property
    def should_stop(self) -> bool:
        """Whether the patience is used up."""
        return self._patience is not None and int(self.stale) >= self._patience

    @property
    def best_epoch(self) -> int | None:
        """Epoch (from 0) with the best score; None before the first score."""
        return int(self.epoch_of_best) if int(self.epoch_of_best) >= 0 else None

    def after_validation(self, epoch: int, logs: dict[str, Any]) -> None:
        """Keeps the weights if the score is the best so far; NaN is never better."""
        score = monitored_score(logs, self.monitor)
        if not self._is_better(score):
            self.stale.assign_add(1)
            return
        self.best_score.assign(score)
        self.epoch_of_best.assign(epoch)
        self.stale.assign(0)
        self._best_weights.take()

    def end(self) -> None:
        """Restores the weights of the best score, if there was one."""
        if self.best_epoch is not None:
            self._best_weights.put_back()

    def _is_better(self, score: float) -> bool:
        if self.best_epoch is None:
            return not math.isnan(score)
        return self._sign * score < self._sign * float(self.best_score) - self._min_delta


class ExponentialDecay(Controller):
    """Sets the learning rate to `rate * decay_rate ** (step / decay_steps)`."""

    def __init__(self, learning_rate: float, *, decay_rate: float, decay_steps: int) -> None:
        """Creates the schedule.

        Args:
            learning_rate: rate of the first step, positive.
            decay_rate: factor per `decay_steps` steps, in (0, 1].
            decay_steps: at least 1.

        Raises:
            ValueError: if a number is out of its range.
        """
        super().__init__(name="exponential_decay")
        if not 0 < decay_rate <= 1:
            raise ValueError(f"decay_rate={decay_rate}: expected above 0 and at most 1")
        if decay_steps < 1:
            raise ValueError(f"decay_steps={decay_steps}: expected at least 1")
        self._rate = tf.keras.optimizers.schedules.ExponentialDecay(learning_rate, decay_steps, decay_rate)

    def before_step(self, learning_rate: tf.Variable, step: tf.Tensor) -> None:
        """Sets the rate of the step."""
        learning_rate.assign(self._rate(step))


class ReduceOnPlateau(Controller):
    """Multiplies the learning rate by `factor` after `patience` validations without improvement.

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
        monitor: str = DEFAULT_MONITOR,
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
            raise ValueError(f"factor={factor}: expected above 0 and below 1")
        if patience < 1:
            raise ValueError(f"patience={patience}: expected at least 1")
        self.monitor = monitor
        self._factor, self._patience = factor, patience
        self._min_learning_rate, self._min_delta = min_learning_rate, min_delta
        self._sign = 1.0 if stop_at_min else -1.0
        self.learning_rate = tf.Variable(
            learning_rate, trainable=False, dtype=tf.float32, name="learning_rate"
        )
        self.best = tf.Variable(float("inf"), trainable=False, dtype=tf.float64, name="best")
        self.stale = tf.Variable(0, trainable=False, dtype=tf.int64, name="stale")

    def before_step(self, learning_rate: tf.Variable, step: tf.Tensor) -> None:
        """Sets the present rate."""
        learning_rate.assign(self.learning_rate)

    def after_validation(self, epoch: int, logs: dict[str, Any]) -> None:
        """Reduces the rate if the score has not improved for long enough."""
        quantity = self._sign * monitored_score(logs, self.monitor)
        if quantity < float(self.best) - self._min_delta:
            self.best.assign(quantity)
            self.stale.assign(0)
            return
        self.stale.assign_add(1)
        if int(self.stale) < self._patience:
            return
        self.stale.assign(0)
        rate = float(self.learning_rate)
        self.learning_rate.assign(max(rate * self._factor, min(rate, self._min_learning_rate)))


def make_schedule(options: OptimizerOptions, monitor: str, steps_per_epoch: int) -> Controller | None:
    """The schedule of the learning rate; None for a constant one."""
    if options.learning_rate_schedule == "exponential":
        return ExponentialDecay(
            options.learning_rate,
            decay_rate=options.decay_rate,
            decay_steps=max(1, round(options.decay_epochs * steps_per_epoch)),
        )
    if options.learning_rate_schedule == "plateau":
        return ReduceOnPlateau(
            options.learning_rate,
            factor=options.plateau_factor,
            patience=options.plateau_patience,
            min_learning_rate=options.min_learning_rate,
            monitor=monitor,
        )
    return None
