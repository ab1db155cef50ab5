"""Chunks of training steps inside one `tf.function`."""

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
    """The results of some steps.

    Attributes:
        steps: number of steps.
        sums: sum of each scalar over the finite steps, those in which all scalars were finite.
        finite_steps: number of finite steps.
        labels: labels of the last step, of the global batch.
        embeddings: embeddings of the last step, of the global batch, float32 [B, D].
        bad_step: number of the first step that is not finite, from 1 over the run; 0 if there is none.
        bad: scalars of that step; empty if there is none.
        data_wait: seconds in which the steps waited for their batches.
    """

    steps: int
    sums: dict[str, float]
    finite_steps: int
    labels: tf.Tensor
    embeddings: tf.Tensor
    bad_step: int
    bad: dict[str, float]
    data_wait: float

    @property
    def images(self) -> int:
        """Number of images of the steps."""
        return self.steps * int(self.embeddings.shape[0])


class ChunkRunner:
    """Runs several steps per call, without returning to Python between them.

    They run under the distribution strategy that was in scope when the runner was created.

    Attributes:
        scalars: names of the scalars of a step.
        trace_count: number of traces: one, whatever the numbers of steps.
    """

    def __init__(
        self,
        step_function: StepFunction,
        element_spec: tuple[tf.TypeSpec, tf.TypeSpec],
        step: tf.Variable,
        before_step: Callable[[tf.Tensor], None],
        after_step: Callable[[tf.Tensor, tf.Tensor], None],
    ) -> None:
        """Traces the step.

        Args:
            step_function: (images, labels) -> (scalars, labels, embeddings), outside of replica context.
            element_spec: specification of a batch; with several replicas, of the rows of each.
            step: int64 variable, number of steps made.
            before_step: called before each step, in tensor code, with the number of steps made.
            after_step: called after each finite step, in tensor code, with its labels and embeddings.
        """
        self._strategy = tf.distribute.get_strategy()
        self._function = tf.function(step_function)
        self._counter, self._before_step, self._after_step = step, before_step, after_step
        self._now = _clock()
        scalars, self._labels_spec, self._embeddings_spec = self._function.get_concrete_function(
            *element_spec
        ).structured_outputs
        self.scalars = tuple(sorted(scalars))
        self.trace_count = 0
        self._run = tf.function(self._steps)

    def __call__(self, iterator: Any, steps: int) -> Chunk:
        """Makes steps.

        Args:
            iterator: iterator over batches.
            steps: number of steps, at least 1.
        """
        with self._strategy.scope():
            results = self._run(iterator, tf.constant(steps))
        sums, finite_steps, bad_step, bad, labels, embeddings, data_wait = results
        return Chunk(
            steps=steps,
            sums=dict(zip(self.scalars, sums.numpy().tolist())),
            finite_steps=int(finite_steps),
            labels=labels,
            embeddings=embeddings,
            bad_step=int(bad_step),
            bad=dict(zip(self.scalars, bad.numpy().tolist())) if int(bad_step) else {},
            data_wait=float(data_wait),
        )

    def _steps(self, iterator: Any, steps: tf.Tensor) -> tuple[tf.Tensor, ...]:
        self.trace_count += 1
        sums, bad = tf.zeros([len(self.scalars)]), tf.zeros([len(self.scalars)])
        finite_steps, bad_step = tf.constant(0), tf.constant(0, tf.int64)
        data_wait = tf.zeros([], tf.float64)
        labels, embeddings = _empty(self._labels_spec), _empty(self._embeddings_spec)
        for _ in tf.range(steps):
            tf.autograph.experimental.set_loop_options(
                shape_invariants=[
                    (labels, self._labels_spec.shape),
                    (embeddings, self._embeddings_spec.shape),
                ]
            )
            asked = self._now()
            # Only these dependencies order the clock and the iterator.
            with tf.control_dependencies([asked]):
                batch = next(iterator)
            with tf.control_dependencies(tf.nest.flatten(batch, expand_composites=True)):
                data_wait += self._now() - asked
            self._before_step(self._counter.read_value())
            scalars, labels, embeddings = self._function(*batch)
            self._counter.assign_add(1)
            number = self._counter.read_value()
            values = tf.stack([scalars[name] for name in self.scalars])
            finite = tf.reduce_all(tf.math.is_finite(values))
            sums += tf.where(finite, values, tf.zeros_like(values))
            finite_steps += tf.cast(finite, tf.int32)
            if finite:
                self._after_step(labels, embeddings)
            is_first_bad = tf.equal(bad_step, 0) & ~finite
            bad_step = tf.where(is_first_bad, number, bad_step)
            bad = tf.where(is_first_bad, values, bad)
        return sums, finite_steps, bad_step, bad, labels, embeddings, data_wait


def _clock() -> Callable[[], tf.Tensor]:
    """Returns a function that reads a clock, in seconds, as tensor code: float64 scalar.

    TensorFlow refuses `tf.timestamp` where operations have to be deterministic. The clock of Python takes its
    place there; a call takes 25 microseconds.
    """
    try:
        tf.timestamp()
    except tf.errors.FailedPreconditionError:
        return lambda: tf.ensure_shape(tf.numpy_function(time.perf_counter, [], tf.float64), [])
    return tf.timestamp


def _empty(spec: tf.TensorSpec) -> tf.Tensor:
    return tf.zeros([size or 0 for size in spec.shape], spec.dtype)
