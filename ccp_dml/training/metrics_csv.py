"""The epoch logs as a CSV file that stays right when a run is continued."""

from __future__ import annotations

import csv
import io
import os
from pathlib import Path
from typing import Any

import tensorflow as tf

from ccp_dml import durable


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
        durable.write_text(self._path, text.getvalue())
