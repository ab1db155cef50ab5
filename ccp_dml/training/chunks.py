"""Whole chunks of training steps inside one `tf.function`."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import tensorflow as tf

Batch = tuple[tf.Tensor, tf.Tensor]
StepFunction = Callable[[tf.Tensor, tf.Tensor], tuple[dict[str, tf.Tensor], tf.Tensor]]


class ChunkRunner:
    """Runs a number of steps per call, without coming back to Python between them.

    Attributes:
        scalars: names of the scalars that a step returns.
        trace_count: how often the chunk was traced: once, however many steps are asked for.
    """

    def __init__(
        self,
        step_function: StepFunction,
        element_spec: tuple[tf.TensorSpec, tf.TensorSpec],
        step: tf.Variable,
        before_step: Callable[[tf.Tensor], None],
    ) -> None:
        """Traces the step.

        Args:
            step_function: (images, labels) -> (scalars, embeddings).
            element_spec: specification of a batch.
            step: int64 variable, counts the steps.
            before_step: called with the number of each step before it, in tensor code.
        """
        self._strategy = tf.distribute.get_strategy()
        self._function = tf.function(step_function)
        self._counter, self._before_step = step, before_step
        scalars, self._embeddings_spec = self._function.get_concrete_function(
            *element_spec
        ).structured_outputs
        self._labels_spec = element_spec[1]
        self.scalars = tuple(sorted(scalars))
        self.trace_count = 0
        self._run = tf.function(self._steps)

    def __call__(self, iterator: Any, steps: int) -> tuple[dict[str, float], tf.Tensor, tf.Tensor]:
        """Makes steps.

        Args:
            iterator: over batches.
            steps: how many, at least 1.

        Returns:
            The sum over the steps of every scalar, and the labels and embeddings of the last step.
        """
        sums, labels, embeddings = self._run(iterator, tf.constant(steps))
        return {name: float(value) for name, value in sums.items()}, labels, embeddings

    def _steps(self, iterator: Any, steps: tf.Tensor) -> tuple[dict[str, tf.Tensor], tf.Tensor, tf.Tensor]:
        self.trace_count += 1
        sums = {name: tf.zeros([]) for name in self.scalars}
        labels, embeddings = _empty(self._labels_spec), _empty(self._embeddings_spec)
        for _ in tf.range(steps):
            tf.autograph.experimental.set_loop_options(
                shape_invariants=[
                    (labels, self._labels_spec.shape),
                    (embeddings, self._embeddings_spec.shape),
                ]
            )
            images, labels = next(iterator)
            self._before_step(self._counter.read_value())
            scalars, embeddings = self._strategy.run(self._function, args=(images, labels))
            sums = {name: sums[name] + scalars[name] for name in self.scalars}
            self._counter.assign_add(1)
        return sums, labels, embeddings


def _empty(spec: tf.TensorSpec) -> tf.Tensor:
    return tf.zeros([size or 0 for size in spec.shape], spec.dtype)
