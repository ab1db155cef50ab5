"""Steps with numbers that are not finite: stopping or skipping, and the loss scale of float16."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import tensorflow as tf

from ccp_dml.training.gradients import Gradients


class Diverged(RuntimeError):
    """The loss, the embeddings or the gradients are not finite."""


class FiniteGuard(tf.Module):
    """Stops training at a step with numbers that are not finite, or skips such steps.

    A skipped step changes neither weights nor statistics nor memories; the stream of batches goes on.

    Attributes:
        skips: True if such steps are skipped.
        skipped: int64 variable, number of skipped steps.
        in_a_row: int64 variable, number of skipped steps since the last finite one.
    """

    def __init__(self, *, skips: bool = False, most_in_a_row: int = 10) -> None:
        """Creates the counters.

        Args:
            skips: skip such steps; by default the first one stops training.
            most_in_a_row: number of skipped steps in a row that stops training after all, at least 1.
        """
        super().__init__(name="finite_guard")
        self.skips, self._most_in_a_row = skips, most_in_a_row
        self.skipped = tf.Variable(0, trainable=False, dtype=tf.int64, name="skipped")
        self.in_a_row = tf.Variable(0, trainable=False, dtype=tf.int64, name="in_a_row")

    @property
    def logs(self) -> dict[str, int]:
        """`skipped_steps`, if there are any."""
        skipped = int(self.skipped.numpy())
        return {"skipped_steps": skipped} if skipped else {}

    def record(self, finite: tf.Tensor) -> None:
        """Counts a step; tensor code.

        Args:
            finite: bool scalar, true if all numbers of the step are finite.
        """
        self.skipped.assign_add(tf.cast(~finite, tf.int64))
        self.in_a_row.assign(tf.where(finite, tf.zeros_like(self.in_a_row), self.in_a_row + 1))

    def check(self, step: int, scalars: Mapping[str, float], checkpoint: str | None) -> None:
        """Raises `Diverged` if training has to stop at a step with numbers that are not finite.

        Args:
            step: number of the step, from 1.
            scalars: scalars of the step.
            checkpoint: path of the newest checkpoint, for the message.
        """
        in_a_row = int(self.in_a_row.numpy())
        if self.skips and in_a_row < self._most_in_a_row:
            return
        bad = [name for name, value in scalars.items() if value - value != 0]
        values = ", ".join(f"{name} {value:.4g}" for name, value in scalars.items())
        count = f"{in_a_row} steps in a row skipped; " if self.skips else ""
        kept = f"the last good checkpoint is {checkpoint}" if checkpoint else "there is no checkpoint"
        advice = "a lower learning rate" if self.skips else "a lower learning rate, or to skip such steps"
        raise Diverged(
            f"Not finite at step {step}: {', '.join(bad)} ({values}); {count}{kept}. Try {advice}."
        )


class DynamicLossScale(tf.Module):
    """Scales the loss so that gradients stay in the range of float16; one scale for all optimizer groups.

    The scale doubles after `growth_steps` steps in a row with finite gradients. It halves after any other
    step, which has to be skipped. `tf.keras.mixed_precision.LossScaleOptimizer` wraps a single optimizer:
    with one for each group, groups would skip different steps.

    Attributes:
        scale: float32 variable, the present scale.
        good_steps: int64 variable, finite steps since the last change.
    """

    def __init__(self, initial_scale: float = 2.0**15, growth_steps: int = 2000) -> None:
        """Creates the state.

        Args:
            initial_scale: first scale, at least 1.
            growth_steps: finite steps before the scale doubles, at least 1.
        """
        super().__init__(name="loss_scale")
        self._growth_steps = growth_steps
        self.scale = tf.Variable(initial_scale, trainable=False, dtype=tf.float32, name="scale")
        self.good_steps = tf.Variable(0, trainable=False, dtype=tf.int64, name="good_steps")

    @classmethod
    def of_policy(cls) -> DynamicLossScale | None:
        """Returns a loss scale if the global Keras policy computes in float16, None otherwise."""
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
            finite: bool scalar, true if all gradients of the step are finite.
        """
        counted = self.good_steps + 1
        grow = tf.logical_and(finite, counted >= self._growth_steps)
        grown = tf.where(grow, self.scale * 2.0, self.scale)
        # The largest power of two in float32 stays as it is.
        grown = tf.where(tf.math.is_finite(grown), grown, self.scale)
        self.good_steps.assign(tf.where(finite & ~grow, counted, tf.zeros_like(counted)))
        self.scale.assign(tf.where(finite, grown, tf.maximum(self.scale / 2.0, 1.0)))


def all_finite(scalars: Mapping[str, tf.Tensor]) -> tf.Tensor:
    """Returns true if all float scalars are finite: bool scalar."""
    return tf.reduce_all(tf.math.is_finite(tf.stack(list(scalars.values()))))


def untrained_variables(*components: object) -> list[tf.Variable]:
    """Returns the variables of modules that are not trained: statistics, memories, averages."""
    modules = [component for component in components if isinstance(component, tf.Module)]
    return [variable for module in modules for variable in module.variables if not variable.trainable]


def read_values(variables: Sequence[tf.Variable]) -> list[tf.Tensor]:
    """Reads variables, each replica its own copies; tensor code."""
    return [variable.read_value() for variable in variables]


def restore_values(variables: Sequence[tf.Variable], values: Sequence[Any]) -> None:
    """Assigns the values that `read_values` returned; tensor code, outside of replica context."""
    strategy = tf.distribute.get_strategy()
    for variable, value in zip(variables, values):
        strategy.extended.update(variable, lambda copy, before: copy.assign(before), args=(value,))
