"""Steps whose numbers are not finite: the guard that ends or skips them, and the loss scale of float16."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import tensorflow as tf

from ccp_dml.training.gradients import Gradients

POLICIES = ("stop", "skip")


class Diverged(RuntimeError):
    """The loss, the embeddings or the gradients are not finite numbers."""


class FiniteGuard(tf.Module):
    """Ends training at a step whose numbers are not finite, or skips such steps.

    A skipped step changes neither weights nor statistics nor memories; the data go on.

    Attributes:
        skips: whether such steps are skipped.
        skipped: int64 variable, steps skipped so far.
        in_a_row: int64 variable, how many of them came last, without a finite one in between.
    """

    def __init__(self, policy: str = "stop", most_in_a_row: int = 10) -> None:
        """Creates the counters.

        Args:
            policy: 'stop' or 'skip'.
            most_in_a_row: number of skipped steps in a row that ends training after all, at least 1.

        Raises:
            ValueError: if the policy is unknown or the number is below 1.
        """
        super().__init__(name="finite_guard")
        if policy not in POLICIES:
            raise ValueError(f"policy={policy!r}: expected one of {', '.join(POLICIES)}")
        if most_in_a_row < 1:
            raise ValueError(f"most_in_a_row={most_in_a_row}: expected at least 1")
        self.skips, self._most_in_a_row = policy == "skip", most_in_a_row
        self.skipped = tf.Variable(0, trainable=False, dtype=tf.int64, name="skipped")
        self.in_a_row = tf.Variable(0, trainable=False, dtype=tf.int64, name="in_a_row")

    @property
    def logs(self) -> dict[str, int]:
        """`skipped_steps`, once there are any."""
        skipped = int(self.skipped.numpy())
        return {"skipped_steps": skipped} if skipped else {}

    def record(self, finite: tf.Tensor) -> None:
        """Counts a step; tensor code.

        Args:
            finite: bool scalar, whether all numbers of the step were finite.
        """
        self.skipped.assign_add(tf.cast(~finite, tf.int64))
        self.in_a_row.assign(tf.where(finite, tf.zeros_like(self.in_a_row), self.in_a_row + 1))

    def check(self, step: int, scalars: Mapping[str, float], checkpoint: str | None) -> None:
        """Raises `Diverged` if training has to end at a step whose numbers are not finite.

        Args:
            step: its number, from 1.
            scalars: its scalars; none if all steps were finite.
            checkpoint: path of the newest checkpoint, for the message.
        """
        if not scalars or (self.skips and int(self.in_a_row.numpy()) < self._most_in_a_row):
            return
        bad = [name for name, value in scalars.items() if value - value != 0]
        values = ", ".join(f"{name} {value:.4g}" for name, value in scalars.items())
        count = f"{int(self.in_a_row.numpy())} steps in a row skipped; " if self.skips else ""
        kept = f"the last good checkpoint is {checkpoint}" if checkpoint else "there is no checkpoint"
        advice = "a lower learning rate" if self.skips else "a lower learning rate, or to skip such steps"
        raise Diverged(
            f"Not finite at step {step}: {', '.join(bad)} ({values}); {count}{kept}. Try {advice}."
        )


class DynamicLossScale(tf.Module):
    """Keeps scaled gradients inside the range of float16: one scale for all optimizer groups.

    The scale doubles after `growth_steps` steps with finite gradients in a row and halves after a step
    without, which has to be skipped. `tf.keras.mixed_precision.LossScaleOptimizer` wraps one optimizer; a
    scale for each group would skip different steps.

    Attributes:
        scale: float32 variable, the present factor.
        good_steps: int64 variable, finite steps since the last change.
    """

    def __init__(self, initial_scale: float = 2.0**15, growth_steps: int = 2000) -> None:
        """Creates the state.

        Args:
            initial_scale: first factor, at least 1.
            growth_steps: finite steps before the factor doubles, at least 1.

        Raises:
            ValueError: if a number is below 1.
        """
        super().__init__(name="loss_scale")
        for name, number in (("initial_scale", initial_scale), ("growth_steps", growth_steps)):
            if number < 1:
                raise ValueError(f"{name}={number}: expected at least 1")
        self._growth_steps = growth_steps
        self.scale = tf.Variable(initial_scale, trainable=False, dtype=tf.float32, name="scale")
        self.good_steps = tf.Variable(0, trainable=False, dtype=tf.int64, name="good_steps")

    @classmethod
    def of_policy(cls) -> DynamicLossScale | None:
        """A loss scale if the global Keras policy computes in float16, otherwise None."""
        return cls() if tf.keras.mixed_precision.global_policy().compute_dtype == "float16" else None

    def scaled(self, loss: tf.Tensor) -> tf.Tensor:
        """Multiplies the loss by the scale."""
        return loss * self.scale

    def unscaled(self, gradients: Gradients) -> Gradients:
        """Divides the gradients by the scale."""
        return [
            None if gradient is None else gradient / tf.cast(self.scale, gradient.dtype)
            for gradient in gradients
        ]

    def update(self, finite: tf.Tensor) -> None:
        """Adapts the scale after a step; tensor code.

        Args:
            finite: bool scalar, whether all gradients of the step were finite.
        """
        counted = self.good_steps + 1
        grow = tf.logical_and(finite, counted >= self._growth_steps)
        grown = tf.where(grow, self.scale * 2.0, self.scale)
        # Beyond the largest float32 power of two there is nothing left to gain.
        grown = tf.where(tf.math.is_finite(grown), grown, self.scale)
        self.good_steps.assign(tf.where(finite & ~grow, counted, tf.zeros_like(counted)))
        self.scale.assign(tf.where(finite, grown, tf.maximum(self.scale / 2.0, 1.0)))


def all_finite(scalars: Mapping[str, tf.Tensor]) -> tf.Tensor:
    """Whether all of some float scalars are finite numbers; bool scalar."""
    return tf.reduce_all(tf.math.is_finite(tf.stack(list(scalars.values()))))


def untrained_variables(*components: object) -> list[tf.Variable]:
    """What a step changes besides weights: statistics, memories, averages of the modules."""
    modules = [component for component in components if isinstance(component, tf.Module)]
    return [variable for module in modules for variable in module.variables if not variable.trainable]


def read(variables: Sequence[tf.Variable]) -> list[tf.Tensor]:
    """The present values of variables, on each replica of its own copy; tensor code."""
    return [variable.read_value() for variable in variables]


def put_back(variables: Sequence[tf.Variable], values: Sequence[Any]) -> None:
    """Gives variables the values that `read` has found; tensor code, outside of the replicas."""
    strategy = tf.distribute.get_strategy()
    for variable, value in zip(variables, values):
        strategy.extended.update(variable, lambda copy, local: copy.assign(local), args=(value,))
