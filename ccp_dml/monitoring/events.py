"""TensorBoard event files of a run that can be interrupted and continued."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable
from pathlib import Path

import numpy as np
import numpy.typing as npt
import tensorflow as tf
from tensorboard.plugins.histogram.summary_v2 import histogram_pb
from tensorboard.plugins.scalar.summary_v2 import scalar_pb

_EVENT_FILES = "events.out.tfevents.*"


class EventLog:
    """Writes summaries into one directory, each TensorBoard run ('train', 'validation', …) in a folder of it.

    Every point has the global step of its time. A run that continues from a checkpoint repeats the steps
    after it, so `begin` first removes the points that the interrupted process wrote beyond the restored step.
    So each step appears once, whichever program reads the files.

    Args:
        directory: folder of the event files, created with the first point.
        global_step: returns the number of training steps made so far.
    """

    def __init__(self, directory: str, global_step: Callable[[], int]) -> None:
        self.directory = directory
        self._global_step = global_step
        self._writers: dict[str, tf.summary.SummaryWriter] = {}
        self._begun = False

    @property
    def step(self) -> int:
        """The present global step."""
        return int(self._global_step())

    def begin(self) -> None:
        """Removes the points beyond the present step, all of them at step 0; later calls do nothing.

        The settings of the run, in the directory itself, have no step: they are removed and written again.
        """
        if self._begun:
            return
        self._begun = True
        self.clear("")
        for path in Path(self.directory).glob(f"*/{_EVENT_FILES}"):
            if self.step == 0:
                path.unlink()
            else:
                discard_after(str(path), self.step)

    def clear(self, run: str) -> None:
        """Removes all points of a TensorBoard run."""
        if run in self._writers:
            self._writers.pop(run).close()
        for path in Path(self.directory, run).glob(_EVENT_FILES):
            path.unlink()

    def writer(self, run: str) -> tf.summary.SummaryWriter:
        """The writer of a TensorBoard run; '' is the directory itself."""
        if run not in self._writers:
            self._writers[run] = tf.summary.create_file_writer(os.path.join(self.directory, run))
        return self._writers[run]

    def scalar(self, run: str, tag: str, value: float, description: str | None = None) -> None:
        """Writes one number."""
        self.scalars(run, [(tag, value, description)])

    def scalars(self, run: str, values: Iterable[tuple[str, float, str | None]]) -> None:
        """Writes several numbers, each with its tag and description."""
        # One message: of protocol buffers, the concatenation is the union.
        self._write(run, b"".join(scalar_pb(*value).SerializeToString() for value in values))

    def histogram(self, run: str, tag: str, values: tf.Tensor, description: str | None = None) -> None:
        """Writes the distribution of the finite values, of any shape, if there are any."""
        finite = np.asarray(values, np.float32)
        finite = finite[np.isfinite(finite)]
        if finite.size:
            self._write(run, histogram_pb(tag, finite, description=description).SerializeToString())

    def image(self, run: str, tag: str, image: npt.NDArray[np.uint8], description: str | None = None) -> None:
        """Writes one picture, uint8 [H, W, 3]."""
        with self.writer(run).as_default():
            tf.summary.image(tag, image[np.newaxis], step=self.step, max_outputs=1, description=description)

    def _write(self, run: str, summary: bytes) -> None:
        """Writes a serialised `Summary`.

        Each step of the functions of `tf.summary` would leak some 50 bytes.
        """
        with self.writer(run).as_default():
            tf.summary.experimental.write_raw_pb(summary, step=self.step)

    def flush(self) -> None:
        """Writes all points to the disk."""
        for writer in self._writers.values():
            writer.flush()


def discard_after(path: str, step: int) -> None:
    """Rewrites an event file without the events beyond a step, and without a record that a crash cut off.

    A file without such events is not touched, and one without remaining points is deleted.

    Args:
        path: an event file.
        step: the last global step to keep.
    """
    kept: list[bytes] = []
    points, removed = 0, False
    try:
        for record in tf.data.TFRecordDataset(path).as_numpy_iterator():
            event = tf.compat.v1.Event.FromString(record)
            if event.step > step:
                removed = True
                continue
            kept.append(record)
            points += event.WhichOneof("what") == "summary"
    except tf.errors.DataLossError:
        removed = True
    if not points:
        tf.io.gfile.remove(path)
    elif removed:
        # TensorBoard reads every file whose name contains "tfevents", even a half-written one.
        temporary = os.path.join(os.path.dirname(path), ".rewriting")
        with tf.io.TFRecordWriter(temporary) as writer:
            for record in kept:
                writer.write(record)
        tf.io.gfile.rename(temporary, path, overwrite=True)


class EventCallback(tf.keras.callbacks.Callback):
    """A Keras callback that writes to an `EventLog`."""

    def __init__(self, events: EventLog) -> None:
        super().__init__()
        self.events = events

    def on_train_begin(self, logs: dict[str, float] | None = None) -> None:
        """Removes the points that an interrupted process wrote beyond the restored step."""
        self.events.begin()
