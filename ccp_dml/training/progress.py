"""Progress on the terminal: a bar where there is one, otherwise a line per epoch."""

from __future__ import annotations

import sys
import time
from collections.abc import Sequence
from typing import Any, TextIO

import tensorflow as tf

EPOCH_COLUMNS = ("loss", "learning_rate", "images_per_second")


class Progress(tf.keras.callbacks.Callback):
    """Shows loss, images per second and the time left while training.

    On a terminal every epoch has a bar (`tf.keras.utils.Progbar`) with the time left of the epoch; elsewhere
    (a log file) only the line at its end is printed. That line tells the epoch, the chosen logs and the time
    left of the run, should it go on to its last epoch.
    """

    def __init__(self, columns: Sequence[str] = EPOCH_COLUMNS, stream: TextIO | None = None) -> None:
        """Creates the callback.

        Args:
            columns: which of the epoch's logs to show, if present.
            stream: where to print; None for standard output. Bars only ever go to standard output.
        """
        super().__init__()
        self._columns, self._stream = tuple(columns), stream
        self._bar: Any = None

    def on_train_begin(self, logs: dict[str, Any] | None = None) -> None:
        """Starts the clock of the run."""
        self._started, self._epochs_done = time.monotonic(), 0

    def on_epoch_begin(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        """Starts a bar."""
        self._epoch_started = time.monotonic()
        if self._stream is None and sys.stdout.isatty():
            self._bar = tf.keras.utils.Progbar(self.params["steps"], stateful_metrics=["loss", "images/s"])

    def on_train_batch_end(self, batch: int, logs: dict[str, Any] | None = None) -> None:
        """Moves the bar to step `batch` of the epoch."""
        if self._bar is not None and logs:
            values = [("loss", logs["loss"]), ("images/s", round(logs.get("images_per_second", 0.0), 1))]
            # Not finalised at the last step: the line is replaced by the one of the whole epoch.
            self._bar.update(batch + 1, values, finalize=False)

    def on_epoch_end(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        """Prints the line of the epoch."""
        logs = logs or {}
        self._epochs_done += 1
        now = time.monotonic()
        left = (now - self._started) / self._epochs_done * (self.params["epochs"] - epoch - 1)
        names = [name for name in self._columns if name in logs]
        fields = [f"{name} {_short(logs[name])}" for name in names]
        line = f"epoch {epoch + 1}/{self.params['epochs']}  {now - self._epoch_started:.1f}s  " + "  ".join(
            fields
        )
        stream = self._stream or sys.stdout
        if self._bar is not None:
            stream.write("\r\033[K")
            self._bar = None
        stream.write(f"{line}  (at most {_duration(left)} left)\n")
        stream.flush()


def _short(value: Any) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def _duration(seconds: float) -> str:
    minutes, seconds = divmod(int(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    if hours:
        return f"{hours} h {minutes:02d} min"
    return f"{minutes} min {seconds:02d} s" if minutes else f"{seconds} s"
