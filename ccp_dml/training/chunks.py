"""Whole chunks of training steps inside one `tf.function`."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import tensorflow as tf

# Images and labels of each replica -> scalars, labels and embeddings of the global batch.
StepFunction = Callable[[Any, Any], tuple[dict[str, tf.Tensor], tf.Tensor, tf.Tensor]]


@dataclass(frozen=True)
class Chunk:
    """The results of a number of steps.

    Attributes:
        sums: of every scalar, over the steps in which all were finite.
        finite_steps: number of these steps.
        labels: those of the last step, of all replicas.
        embeddings: those of the last step, of all replicas, float32 [B, D].
        bad_step: the first step whose scalars were not all finite, counted from 1 over the run; 0 if none.
        bad: the scalars of that step; empty if there is none.
        data_wait: seconds in which the steps waited for their batches.
    """

    sums: dict[str, float]
    finite_steps: int
    labels: tf.Tensor
    embeddings: tf.Tensor
    bad_step: int
    bad: dict[str, float]
    data_wait: float

    @property
    def means(self) -> dict[str, float]:
        """Of every scalar over the finite steps, of which there is one at least."""
        return {name: value / self.finite_steps for name, value in self.sums.items()}


class ChunkRunner:
    """Runs a number of steps per call, without coming back to Python between them.

    They run under the distribution strategy that was in scope when the runner was made.

    Attributes:
        scalars: names of the scalars that a step returns.
        trace_count: how often the chunk was traced: once, however many steps are asked for.
    """

    def __init__(
        self,
        step_function: StepFunction,
        element_spec: tuple[tf.TypeSpec, tf.TypeSpec],
        step: tf.Variable,
        before_step: Callable[[tf.Tensor], None],
        after_step: Callable[[tf.Tensor, tf.Tensor], None] | None = None,
    ) -> None:
        """Traces the step.

        Args:
            step_function: (images, labels) -> (scalars, labels, embeddings), called outside of the replicas.
            element_spec: specification of a batch; with several replicas, of the rows of each.
            step: int64 variable, counts the steps.
            before_step: called with the number of each step before it, in tensor code.
            after_step: called with the labels and embeddings of each finite step after it, in tensor code.
        """
        self._strategy = tf.distribute.get_strategy()
        self._function = tf.function(step_function)
        self._counter, self._before_step, self._now = step, before_step, _clock()
        self._after_step = after_step
        scalars, self._labels_spec, self._embeddings_spec = self._function.get_concrete_function(
            *element_spec
        ).structured_outputs
        self.scalars = tuple(sorted(scalars))
        self.trace_count = 0
        self._run = tf.function(self._steps)

    def __call__(self, iterator: Any, steps: int) -> Chunk:
        """Makes steps.

        Args:
            iterator: over batches.
            steps: how many, at least 1.
        """
        with self._strategy.scope():
            results = self._run(iterator, tf.constant(steps))
        sums, finite, bad_step, bad, labels, embeddings, wait = results
        return Chunk(
            dict(zip(self.scalars, sums.numpy().tolist())),
            int(finite),
            labels,
            embeddings,
            int(bad_step),
            dict(zip(self.scalars, bad.numpy().tolist())) if int(bad_step) else {},
            float(wait),
        )

    def _steps(self, iterator: Any, steps: tf.Tensor) -> tuple[tf.Tensor, ...]:
        self.trace_count += 1
        sums, bad = tf.zeros([len(self.scalars)]), tf.zeros([len(self.scalars)])
        finite_steps, bad_step = tf.constant(0), tf.constant(0, tf.int64)
        wait = tf.zeros([], tf.float64)
        labels, embeddings = _empty(self._labels_spec), _empty(self._embeddings_spec)
        for _ in tf.range(steps):
            tf.autograph.experimental.set_loop_options(
                shape_invariants=[
                    (labels, self._labels_spec.shape),
                    (embeddings, self._embeddings_spec.shape),
                ]
            )
            asked = self._now()
            # Nothing but these dependencies would order the clock and the iterator.
            with tf.control_dependencies([asked]):
                batch = next(iterator)
            with tf.control_dependencies(tf.nest.flatten(batch, expand_composites=True)):
                wait += self._now() - asked
            self._before_step(self._counter.read_value())
            scalars, labels, embeddings = self._function(*batch)
            self._counter.assign_add(1)
            number = self._counter.read_value()
            values = tf.stack([scalars[name] for name in self.scalars])
            finite = tf.reduce_all(tf.math.is_finite(values))
            sums += tf.where(finite, values, tf.zeros_like(values))
            finite_steps += tf.cast(finite, tf.int32)
            if self._after_step is not None and finite:
                self._after_step(labels, embeddings)
            first = tf.equal(bad_step, 0) & ~finite
            bad_step = tf.where(first, number, bad_step)
            bad = tf.where(first, values, bad)
        return sums, finite_steps, bad_step, bad, labels, embeddings, wait


def _clock() -> Callable[[], tf.Tensor]:
    """A function that gives the seconds of a clock, float64 scalar, in tensor code.

    `tf.timestamp` is refused where operations have to be deterministic. What takes its place there calls
    Python, 25 microseconds each time.
    """
    try:
        tf.timestamp()
    except tf.errors.FailedPreconditionError:
        return lambda: tf.ensure_shape(tf.numpy_function(time.perf_counter, [], tf.float64), [])
    return tf.timestamp


def _empty(spec: tf.TensorSpec) -> tf.Tensor:
    return tf.zeros([size or 0 for size in spec.shape], spec.dtype)
