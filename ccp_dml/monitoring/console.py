"""Reports on each epoch: a line on the terminal, a row in `metrics.csv`, warnings."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any, TextIO

import tensorflow as tf

from ccp_dml import files
from ccp_dml.commands import warn

# Untrained networks reach 0.9 and more; beyond this value only rounding tells neighbours apart.
_COLLAPSED = 0.9999
_EPOCH = "epoch"


class Progress(tf.keras.callbacks.Callback):
    """Shows the progress of training.

    On a terminal, every epoch has a bar (`tf.keras.utils.Progbar`) with the loss, the speed and the time left
    of the epoch. Its last line, the only one in a log file, shows the chosen logs and the time that the run
    needs to its last epoch.
    """

    def __init__(self, columns: Sequence[str], stream: TextIO | None = None) -> None:
        """Creates the callback.

        Args:
            columns: names of the epoch logs to show, if present.
            stream: stream to print to; None: standard output. Bars only go to standard output.
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
            # Not finalised at the last step: the line of the epoch replaces the bar.
            self._bar.update(batch + 1, values, finalize=False)

    def on_epoch_end(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        """Prints the line of the epoch."""
        logs, epochs, now = logs or {}, self.params["epochs"], time.monotonic()
        self._epochs_done += 1
        left = (now - self._started) / self._epochs_done * (epochs - epoch - 1)
        values = [f"{name} {_short(logs[name])}" for name in self._columns if name in logs]
        line = "  ".join([f"epoch {epoch + 1}/{epochs}", f"{now - self._epoch_started:.1f}s", *values])
        stream = self._stream or sys.stdout
        if self._bar is not None:
            stream.write("\r\033[K")
            self._bar = None
        stream.write(f"{line}  (at most {_duration(left)} left)\n")
        stream.flush()


class MetricsCsv(tf.keras.callbacks.Callback):
    """Writes a row for each epoch: `epoch` (from 0) and all epoch logs.

    Keras' `CSVLogger` appends: epochs that a continued run repeats would appear twice, and a value that the
    first row lacks would be an error. This callback drops the rows of repeated epochs, has the union of all
    columns, and replaces the file as a unit, so that it is never half written.
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        """Creates the callback.

        Args:
            path: the file; its folder is created when training begins.
        """
        super().__init__()
        self._path = Path(path)
        self._columns = [_EPOCH]
        # Text, which takes a fraction of the memory of dictionaries.
        self._rows: list[str] = []
        self._is_first = True

    def on_train_begin(self, logs: dict[str, Any] | None = None) -> None:
        """Reads the rows of an interrupted run; leaves damaged ones out, with a warning."""
        self._is_first = True
        self._columns, self._rows = [_EPOCH], []
        self._path.parent.mkdir(parents=True, exist_ok=True)
        if not self._path.exists():
            return
        first, *rows = self._path.read_bytes().decode(errors="replace").splitlines() or [""]
        header = first.split(",")
        if header[0] == _EPOCH and len(set(header)) == len(header):
            self._columns = header
            epoch = -1
            for row in rows:
                is_readable = row.count(",") == len(header) - 1 and all(map(_is_number, row.split(",")))
                if is_readable and _epoch_of(row) > epoch:
                    epoch = _epoch_of(row)
                    self._rows.append(row)
        if len(self._rows) < len(rows) or header != self._columns:
            warn(f"{self._path}: damaged; {len(self._rows)} of {len(rows)} rows can be read and are kept")
            self._write()

    def on_epoch_begin(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        """Drops the rows of the first epoch and later ones."""
        if self._is_first:
            self._rows = [row for row in self._rows if _epoch_of(row) < epoch]
            self._is_first = False

    def on_epoch_end(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        """Writes the row."""
        values = {_EPOCH: epoch, **(logs or {})}
        new = [name for name in values if name not in self._columns]
        self._columns += new
        self._rows = [row + "," * len(new) for row in self._rows] if new else self._rows
        self._rows.append(_line([values.get(name, "") for name in self._columns]))
        self._write()

    def _write(self) -> None:
        files.write_text(self._path, "\r\n".join([_line(self._columns), *self._rows, ""]))


class HealthCheck(tf.keras.callbacks.Callback):
    """Warns once if the embeddings collapse, and once if the loss has no gradient for a complete epoch."""

    def __init__(self, warn: Callable[[str], None]) -> None:
        """Creates the check.

        Args:
            warn: called with one line for each warning.
        """
        super().__init__()
        self._warn = warn
        self._given: set[str] = set()

    def on_epoch_end(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        """Checks `val_mean_cosine` and `gradient_norm`, if they are among the logs."""
        values = logs or {}
        if values.get("val_mean_cosine", 0.0) > _COLLAPSED:
            self._warn_once(
                "collapse",
                f"epoch {epoch + 1}: the embeddings have collapsed, their mean cosine is "
                f"{values['val_mean_cosine']:.6f}; try a lower learning rate, a larger margin, "
                "or easier negatives",
            )
        if values.get("gradient_norm") == 0.0:
            self._warn_once(
                "inactive",
                f"epoch {epoch + 1}: the loss was inactive, no pair had a gradient; "
                "try a larger margin, more classes per batch, or a miner",
            )

    def _warn_once(self, kind: str, message: str) -> None:
        if kind not in self._given:
            self._given.add(kind)
            self._warn(message)


def _line(values: Iterable[object]) -> str:
    """Returns values as a row of CSV; names and numbers need no quotes."""
    return ",".join(map(str, values))


def _epoch_of(row: str) -> int:
    """Returns the first value of a row; -1 if it is no number of an epoch."""
    text = row.partition(",")[0]
    return int(text) if text.isascii() and text.isdigit() else -1


def _is_number(text: str) -> bool:
    """Returns True for the text of a number, or of a value that a row lacks."""
    try:
        return not text or isinstance(float(text), float)
    except ValueError:
        return False


def _short(value: Any) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def _duration(seconds: float) -> str:
    minutes, seconds = divmod(int(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    if hours:
        return f"{hours} h {minutes:02d} min"
    return f"{minutes} min {seconds:02d} s" if minutes else f"{seconds} s"
