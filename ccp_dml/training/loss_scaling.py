"""Dynamic loss scaling for float16: one scale for all optimizer groups.

`tf.keras.mixed_precision.LossScaleOptimizer` wraps one optimizer; wrapping each group would give each a
scale, and a decision to skip a step, of its own.
"""

from __future__ import annotations

import tensorflow as tf

from ccp_dml.training.gradients import Gradients


class DynamicLossScale(tf.Module):
    """Keeps the scaled gradients inside the range of float16.

    The scale doubles after `growth_steps` steps with finite gradients in a row and halves after a step
    without, which has to be skipped.

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
        if initial_scale < 1 or growth_steps < 1:
            raise ValueError(
                f"The loss scale is {initial_scale}, its growth steps {growth_steps}; at least 1 is expected."
            )
        self._growth_steps = growth_steps
        self.scale = tf.Variable(initial_scale, trainable=False, dtype=tf.float32, name="scale")
        self.good_steps = tf.Variable(0, trainable=False, dtype=tf.int64, name="good_steps")

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


def loss_scale_for_policy() -> DynamicLossScale | None:
    """A loss scale if the global Keras policy computes in float16, otherwise None."""
    policy = tf.keras.mixed_precision.global_policy().compute_dtype
    return DynamicLossScale() if policy == "float16" else None
