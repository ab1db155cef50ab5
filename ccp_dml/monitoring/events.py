"""TensorBoard event files of one run that can be interrupted and continued."""

from __future__ import annotations

import os
from collections.abc import Callable

import numpy as np
import numpy.typing as npt
import tensorflow as tf

_EVENT_FILES = "events.out.tfevents.*"


class EventLog:
    """Writes summaries below one directory, a sub-directory per TensorBoard run ('train', 'validation', …).

    Every point carries the global step at which it is written. A run that continues from a checkpoint repeats
    the steps after it, so `begin` first removes what the interrupted process wrote beyond the restored step:
    each step then appears once, whichever program reads the files.

    Args:
        directory: where the event files go; made when the first point is written.
        global_step: returns the number of training steps done so far.
    """

    def __init__(self, directory: str, global_step: Callable[[], int]) -> None:
        self.directory = directory
        self._global_step = global_step
        self._writers: dict[str, tf.summary.SummaryWriter] = {}
        self._begun = False

    @property
    def step(self) -> int:
        """The global step of points written now."""
        return int(self._global_step())

    def begin(self) -> None:
        """Removes the points beyond the present step, all of them at step 0; later calls do nothing.

        What lies in the directory itself, the settings of the run, has no step: it is removed, to be written
        anew.
        """
        if self._begun:
            return
        self._begun = True
        self.clear("")
        for path in tf.io.gfile.glob(os.path.join(self.directory, "*", _EVENT_FILES)):
            if self.step == 0:
                tf.io.gfile.remove(path)
            else:
                discard_after(path, self.step)

    def clear(self, run: str) -> None:
        """Removes all points of a run."""
        if run in self._writers:
            self._writers.pop(run).close()
        for path in tf.io.gfile.glob(os.path.join(self.directory, run, _EVENT_FILES)):
            tf.io.gfile.remove(path)

    def writer(self, run: str) -> tf.summary.SummaryWriter:
        """The writer of a run; '' is the directory itself."""
        if run not in self._writers:
            self._writers[run] = tf.summary.create_file_writer(os.path.join(self.directory, run))
        return self._writers[run]

    def scalar(self, run: str, tag: str, value: float, description: str | None = None) -> None:
        """Writes one number."""
        with self.writer(run).as_default():
            tf.summary.scalar(tag, value, step=self.step, description=description)

    def histogram(self, run: str, tag: str, values: tf.Tensor, description: str | None = None) -> None:
        """Writes the distribution of `values`, of any shape; nothing if they are empty or not finite."""
        finite = np.asarray(values, np.float32)
        finite = finite[np.isfinite(finite)]
        if finite.size:
            with self.writer(run).as_default():
                tf.summary.histogram(tag, finite, step=self.step, description=description)

    def image(self, run: str, tag: str, image: npt.NDArray[np.uint8], description: str | None = None) -> None:
        """Writes one picture, uint8 [H, W, 3]."""
        with self.writer(run).as_default():
            tf.summary.image(tag, image[np.newaxis], step=self.step, max_outputs=1, description=description)

    def flush(self) -> None:
        """Puts everything written so far on disk."""
        for writer in self._writers.values():
            writer.flush()


def discard_after(path: str, step: int) -> None:
    """Rewrites an event file without the events beyond `step`, and without a record torn by a crash.

    A file from which nothing is to be removed is left alone; one of which no point remains is deleted.

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
        # TensorBoard reads every file whose name contains "tfevents", also one that is half written.
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
        """Removes what an interrupted process wrote beyond the restored step."""
        self.events.begin()
