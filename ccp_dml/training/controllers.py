"""Controllers: components of the training loop that look at scores and act, such as early stopping.

The alternating projections are another one (`ccp_dml.projections`). Unlike Keras callbacks, controllers are
part of the checkpoints, so an interrupted run decides like an uninterrupted one.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import tensorflow as tf

from ccp_dml.distributed.snapshots import WeightSnapshot
from ccp_dml.training.gradients import ProximalTerm
from ccp_dml.training.options import DEFAULT_MONITOR, OptimizerOptions

# Smallest improvement of a score that keeps the plateau schedule waiting, as in Keras.
_PLATEAU_MIN_DELTA = 1e-4


class Controller(tf.Module):
    """Base of all controllers; its hooks do nothing. `Trainer` calls them in the order of this class."""

    @property
    def watches_every_step(self) -> bool:
        """True if `after_scores` needs the scalars of every single step; a chunk is then one step."""
        return False

    @property
    def should_stop(self) -> bool:
        """True if training ends with this epoch."""
        return False

    @property
    def best_epoch(self) -> int | None:
        """Epoch (from 0) with the best score; None if unknown."""
        return None

    @property
    def proximal_term(self) -> ProximalTerm | None:
        """A term of the gradients of all steps; None without one."""
        return None

    @property
    def logs(self) -> dict[str, Any]:
        """Entries of the epoch logs, as they are before the validation of the epoch."""
        return {}

    def begin(self) -> None:
        """Called before the first step of a run, and again before the first step after a warm-up."""

    def before_step(self, learning_rate: tf.Variable, step: tf.Tensor) -> None:
        """Called before each step, in tensor code, with the steps since the warm-up: int64 scalar."""
        # AutoGraph cannot convert a function without a statement.
        pass

    def after_step(self, labels: tf.Tensor, embeddings: tf.Tensor) -> None:
        """Called after each finite step, in tensor code, with labels and raw embeddings of the batch."""
        pass

    def after_scores(self, scores: Mapping[str, float]) -> None:
        """Called with the scalars of each finite step after the warm-up, if `watches_every_step`."""

    def after_validation(self, epoch: int, logs: dict[str, Any]) -> None:
        """Called with the logs of each epoch after the warm-up, to which it may add entries.

        Raises:
            ValueError: if a monitored score is not in the logs.
        """

    def end(self) -> None:
        """Called after the last step of a run."""


def monitored_score(logs: Mapping[str, Any], monitor: str) -> float:
    """Returns the score of a name in the logs, that of the validation if there is one.

    Raises:
        ValueError: if there is no such score.
    """
    for name in (f"val_{monitor}", monitor):
        if name in logs:
            return float(logs[name])
    raise ValueError(f"The monitored score {monitor!r} is not among the logs {', '.join(sorted(logs))}.")


@dataclass(frozen=True)
class WarmUp:
    """The first epochs, which train the embedding layer and the proxies while the backbone is frozen.

    The learning-rate schedule, early stopping and the problem instances of alternating projections begin
    after the warm-up.

    Attributes:
        epochs: number of epochs, 0 for none; the warm-up may end inside an epoch.
        frozen: variables that the warm-up does not train, usually those of the backbone.
        learning_rate_multiplier: factor on the learning rate during the warm-up, positive.
    """

    epochs: float = 0
    frozen: Sequence[tf.Variable] = field(default=(), repr=False)
    learning_rate_multiplier: float = 1.0

    def steps(self, steps_per_epoch: int) -> int:
        """Returns the number of steps, rounded, and at least one unless there are no epochs."""
        return max(1, round(self.epochs * steps_per_epoch)) if self.epochs else 0

    def trained(self, variables: Sequence[tf.Variable]) -> list[tf.Variable]:
        """Returns the variables that are not frozen.

        Raises:
            ValueError: if all are frozen.
        """
        frozen = {variable.ref() for variable in self.frozen}
        remaining = [variable for variable in variables if variable.ref() not in frozen]
        if not remaining:
            raise ValueError("All variables are frozen during the warm-up; expected some to be trained.")
        return remaining


class EarlyStopping(Controller):
    """Ends training when a score stops improving, and restores the weights of the best score.

    Attributes:
        best_score: float64 variable, NaN before the first score.
        epoch_of_best: int64 variable, the epoch (from 0) with the best score, -1 before the first.
        stale: int64 variable, number of validations since the best score.
    """

    def __init__(
        self,
        variables: Sequence[tf.Variable],
        *,
        patience: int,
        monitor: str = DEFAULT_MONITOR,
        stop_at_min: bool = False,
    ) -> None:
        """Creates the controller.

        Args:
            variables: variables that are restored: all weights of the model, batch statistics included, and
                of the loss. None of them, if training is to end with the weights of the last step.
            patience: validations without improvement that end training; 0 for never.
            monitor: name of the score in the epoch logs.
            stop_at_min: whether lower scores are better.
        """
        super().__init__(name="early_stopping")
        self._monitor, self._patience = monitor, patience
        self._sign = 1.0 if stop_at_min else -1.0
        self.best_score = tf.Variable(float("nan"), trainable=False, dtype=tf.float64, name="best_score")
        self.epoch_of_best = tf.Variable(-1, trainable=False, dtype=tf.int64, name="best_epoch")
        self.stale = tf.Variable(0, trainable=False, dtype=tf.int64, name="stale")
        self._best_weights = WeightSnapshot(variables, name="best_weights")

    @property
    def should_stop(self) -> bool:
        """True if the patience is used up."""
        return bool(self._patience) and int(self.stale) >= self._patience

    @property
    def best_epoch(self) -> int | None:
        """Epoch (from 0) with the best score; None before the first score."""
        return int(self.epoch_of_best) if int(self.epoch_of_best) >= 0 else None

    def after_validation(self, epoch: int, logs: dict[str, Any]) -> None:
        """Keeps the weights if the score is the best so far; NaN is never better."""
        score = monitored_score(logs, self._monitor)
        if not self._is_better(score):
            self.stale.assign_add(1)
            return
        self.best_score.assign(score)
        self.epoch_of_best.assign(epoch)
        self.stale.assign(0)
        self._best_weights.take()

    def end(self) -> None:
        """Restores the weights of the best score, if there is one."""
        if self.best_epoch is not None:
            self._best_weights.restore()

    def _is_better(self, score: float) -> bool:
        if self.best_epoch is None:
            return not math.isnan(score)
        return self._sign * score < self._sign * float(self.best_score)


class ExponentialDecay(Controller):
    """Sets the learning rate to `learning_rate * decay_rate ** (epochs / decay_epochs)`, step by step."""

    def __init__(self, options: OptimizerOptions, steps_per_epoch: int) -> None:
        """Creates the schedule.

        Args:
            options: `learning_rate`, `decay_rate` and `decay_epochs` are used.
            steps_per_epoch: number of steps of an epoch.
        """
        super().__init__(name="exponential_decay")
        steps = max(1, round(options.decay_epochs * steps_per_epoch))
        self._rate = tf.keras.optimizers.schedules.ExponentialDecay(
            options.learning_rate, steps, options.decay_rate
        )

    def before_step(self, learning_rate: tf.Variable, step: tf.Tensor) -> None:
        """Sets the rate of the step."""
        learning_rate.assign(self._rate(step))


class ReduceOnPlateau(Controller):
    """Multiplies the learning rate by a factor after some validations without improvement.

    Attributes:
        learning_rate: float32 variable, the present rate.
        best: float64 variable, the best score so far, negated if higher is better.
        stale: int64 variable, number of validations since the last improvement or reduction.
    """

    def __init__(
        self, options: OptimizerOptions, monitor: str = DEFAULT_MONITOR, *, stop_at_min: bool = False
    ) -> None:
        """Creates the schedule.

        Args:
            options: `learning_rate`, `plateau_factor`, `plateau_patience` and `min_learning_rate` are used.
            monitor: name of the score in the epoch logs.
            stop_at_min: whether lower scores are better.
        """
        super().__init__(name="reduce_on_plateau")
        self._monitor, self._options = monitor, options
        self._sign = 1.0 if stop_at_min else -1.0
        self.learning_rate = tf.Variable(
            options.learning_rate, trainable=False, dtype=tf.float32, name="learning_rate"
        )
        self.best = tf.Variable(float("inf"), trainable=False, dtype=tf.float64, name="best")
        self.stale = tf.Variable(0, trainable=False, dtype=tf.int64, name="stale")

    def before_step(self, learning_rate: tf.Variable, step: tf.Tensor) -> None:
        """Sets the present rate."""
        learning_rate.assign(self.learning_rate)

    def after_validation(self, epoch: int, logs: dict[str, Any]) -> None:
        """Reduces the rate if the score has not improved for long enough."""
        quantity = self._sign * monitored_score(logs, self._monitor)
        if quantity < float(self.best) - _PLATEAU_MIN_DELTA:
            self.best.assign(quantity)
            self.stale.assign(0)
            return
        self.stale.assign_add(1)
        if int(self.stale) < self._options.plateau_patience:
            return
        self.stale.assign(0)
        rate = float(self.learning_rate)
        reduced = max(rate * self._options.plateau_factor, self._options.min_learning_rate)
        self.learning_rate.assign(min(rate, reduced))


def make_schedule(options: OptimizerOptions, monitor: str, steps_per_epoch: int) -> Controller | None:
    """Returns the schedule of the learning rate; None for a constant rate."""
    if options.learning_rate_schedule == "exponential":
        return ExponentialDecay(options, steps_per_epoch)
    if options.learning_rate_schedule == "plateau":
        return ReduceOnPlateau(options, monitor)
    return None
