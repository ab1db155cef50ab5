"""A trace of some training steps, for TensorBoard's profiler."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import tensorflow as tf


class ProfileSteps(tf.keras.callbacks.Callback):
    """Traces from the first chunk of steps that begins at `start` or later to the one that reaches `stop`.

    At least one whole chunk is in the trace; validation is too where an epoch ends in between. Keras' own
    TensorBoard callback would count chunks, not steps.
    """

    def __init__(self, directory: str, steps: tuple[int, int], global_step: Callable[[], int]) -> None:
        """Creates the callback.

        Args:
            directory: the trace goes to `directory/plugins/profile/<time>`.
            steps: start and stop, 0 ≤ start < stop.
            global_step: the number of training steps done so far.
        """
        super().__init__()
        self._directory, (self._start, self._stop) = directory, steps
        self._global_step = global_step
        self._due = self._tracing = False

    def on_train_begin(self, logs: dict[str, Any] | None = None) -> None:
        """A run that continues beyond the last step has nothing to trace."""
        self._due = self._global_step() < self._stop

    def on_train_batch_begin(self, batch: int, logs: dict[str, Any] | None = None) -> None:
        """Starts the trace, if it is time."""
        if self._due and self._global_step() >= self._start:
            tf.profiler.experimental.start(self._directory)
            self._due, self._tracing = False, True

    def on_train_batch_end(self, batch: int, logs: dict[str, Any] | None = None) -> None:
        """Ends the trace, if it is time."""
        if self._tracing and self._global_step() >= self._stop:
            self._end()

    def on_train_end(self, logs: dict[str, Any] | None = None) -> None:
        """Ends a trace that the run did not outlast."""
        if self._tracing:
            self._end()

    def _end(self) -> None:
        tf.profiler.experimental.stop()
        self._tracing = False
