"""Progress on the terminal: a bar where there is one, otherwise a line per epoch."""

from __future__ import annotations

import csv
import io
import os
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, TextIO

import tensorflow as tf

from ccp_dml import files

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


class MetricsCsv(tf.keras.callbacks.Callback):
    """Writes a row per epoch: `epoch` (from 0) and every number of its logs.

    Keras' `CSVLogger` appends, so the epochs that a continued run repeats would be there twice, and a value
    that is not in the first row would be an error. Here rows of repeated epochs are dropped, columns are the
    union over all epochs, and the file is replaced as a whole, so it is never half written.
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        """Creates the callback.

        Args:
            path: the file; its folder is created when training begins.
        """
        super().__init__()
        self._path = Path(path)
        self._rows: list[dict[str, Any]] = []
        self._first = True

    def on_train_begin(self, logs: dict[str, Any] | None = None) -> None:
        """Reads what an earlier part of the run has written."""
        self._first = True
        self._rows = []
        self._path.parent.mkdir(parents=True, exist_ok=True)
        if self._path.exists():
            with self._path.open(newline="") as file:
                self._rows = list(csv.DictReader(file))

    def on_epoch_begin(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        """Forgets this epoch and later ones if they are already there."""
        if self._first:
            self._rows = [row for row in self._rows if int(row["epoch"]) < epoch]
            self._first = False

    def on_epoch_end(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        """Writes the row."""
        self._rows.append({"epoch": epoch, **(logs or {})})
        columns = list(dict.fromkeys(name for row in self._rows for name in row))
        text = io.StringIO(newline="")
        writer = csv.DictWriter(text, columns, restval="")
        writer.writeheader()
        writer.writerows(self._rows)
        files.write_text(self._path, text.getvalue())


# Untrained networks reach 0.9 and more; beyond this no neighbour is told from another but by rounding.
_COLLAPSED = 0.9999


class HealthCheck(tf.keras.callbacks.Callback):
    """Warns once when all embeddings are alike, and once when the loss has no gradient for a whole epoch."""

    def __init__(self, warn: Callable[[str], None]) -> None:
        """Creates the check.

        Args:
            warn: told one line each.
        """
        super().__init__()
        self._warn = warn
        self._told: set[str] = set()

    def on_epoch_end(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        """Looks at `val_mean_cosine` and `gradient_norm`, where they are among the logs."""
        values = logs or {}
        if values.get("val_mean_cosine", 0.0) > _COLLAPSED:
            self._tell(
                "collapse",
                f"epoch {epoch + 1}: the embeddings have collapsed, their mean cosine is "
                f"{values['val_mean_cosine']:.6f}; try a lower learning rate, a larger margin, "
                "or easier negatives",
            )
        if values.get("gradient_norm") == 0.0:
            self._tell(
                "inactive",
                f"epoch {epoch + 1}: the loss was inactive, no pair had a gradient; "
                "try a larger margin, more classes per batch, or a miner",
            )

    def _tell(self, kind: str, message: str) -> None:
        if kind not in self._told:
            self._told.add(kind)
            self._warn(message)
