"""Checkpoints of a run, and requests to stop after one."""

from __future__ import annotations

import contextlib
import errno
import os
import re
import signal
import threading
import time
from pathlib import Path
from types import FrameType, TracebackType
from typing import Any

import tensorflow as tf

from ccp_dml import files
from ccp_dml.commands import warn
from ccp_dml.distributed.tables import gathered_tables
from ccp_dml.distributed.workers import SINGLE_WORKER, Workers
from ccp_dml.training.options import CheckpointOptions

_NAME = "state"
_WRITING = ".writing"
_REMOVING = ".removing"
_FOLDER = re.compile(r"step-(\d+)")
_UNREADABLE = (AssertionError, ValueError, IndexError, RuntimeError, OSError, tf.errors.OpError)


class CheckpointError(ValueError):
    """A checkpoint cannot be read, or belongs to another model, loss or optimizer."""


class Checkpoints:
    """The last checkpoints of a run and the best one, each in a sub-folder `step-N`.

    A checkpoint is written under another name and renamed once it is on the disk, so a folder `step-N` is
    always complete. Its values have checksums, so damage is noticed when it is read. TensorFlow's
    `CheckpointManager` finds its checkpoints by a list in a file; if the list were damaged or lost, the run
    would silently start again.

    Attributes:
        workers: processes that save and restore together.

    Example:
        >>> checkpoints, step = Checkpoints(folder), tf.Variable(7)
        >>> checkpoints.track(step=step)
        >>> path = checkpoints.save(7)
        >>> checkpoints.steps
        [7]
    """

    def __init__(
        self,
        directory: str | os.PathLike[str] | None,
        options: CheckpointOptions | None = None,
        *,
        workers: Workers = SINGLE_WORKER,
    ) -> None:
        """Takes the folder; `track` comes next.

        Args:
            directory: the folder, created with the first checkpoint; its parent has to exist. None: nothing
                is saved.
            options: number of checkpoints to keep, and when one is due between the ends of two epochs.
            workers: processes that save and restore together. Only the chief writes and removes checkpoints;
                the others have to see the folder to restore from it.
        """
        self._directory = None if directory is None else Path(directory)
        self._options = options or CheckpointOptions()
        self.workers = workers
        self._checkpoint: tf.train.Checkpoint | None = None
        self.begin(0)

    def track(self, **state: Any) -> None:
        """Takes the content of the checkpoints: trackable objects (models, modules, variables) by name.

        It is called again when they may have got new variables, such as the slots of an optimizer.
        """
        # The graph would keep the values of sharded variables, which are gathered for each checkpoint.
        kind = _GraphCheckpoint if self.workers.strategy is None else tf.train.Checkpoint
        self._checkpoint = kind(**state)

    def begin(self, step: int) -> None:
        """Takes the step at which training begins or continues; `due` counts from there."""
        self._step, self._time = step, time.monotonic()

    def due(self, step: int) -> bool:
        """Returns True if it is time for a checkpoint between the ends of two epochs."""
        if self._directory is None:
            return False
        every_steps, every_seconds = self._options.checkpoint_steps, 60 * self._options.checkpoint_minutes
        by_steps = 0 < every_steps <= step - self._step
        return by_steps or 0 < every_seconds <= time.monotonic() - self._time

    @property
    def steps(self) -> list[int]:
        """Steps with a checkpoint, in ascending order."""
        if self._directory is None or not self._directory.is_dir():
            return []
        found = (_FOLDER.fullmatch(path.name) for path in self._directory.iterdir() if path.is_dir())
        return sorted(int(match[1]) for match in found if match)

    @property
    def latest(self) -> str | None:
        """Path of the newest checkpoint; None if there is none."""
        steps = self.steps
        return self._path(steps[-1]) if steps else None

    def save(self, step: int, best_step: int | None = None) -> str | None:
        """Writes a checkpoint, unless this step has one, and removes old ones.

        Args:
            step: the present step.
            best_step: the step with the best score; its checkpoint is kept in addition to the last ones.

        Returns:
            Path of the checkpoint; None without a folder.

        Raises:
            OSError: if the folder cannot be written to.
        """
        if self._directory is None:
            return None
        assert self._checkpoint is not None, "track() has not been called"
        is_new = self.workers.from_chief(step not in self.steps)
        with gathered_tables(self._checkpoint) if is_new else contextlib.nullcontext():
            if self.workers.is_chief:
                self._directory.mkdir(exist_ok=True)
                self._remove_leftovers()
                if is_new:
                    self._write(self._folder(step))
                for old in self.steps[: -self._options.checkpoint_keep]:
                    if old != best_step:
                        self._remove(old)
        self.begin(step)
        return self._path(step)

    def restore(self) -> str | None:
        """Restores the tracked objects from the newest readable checkpoint; removes newer, damaged ones.

        Returns:
            Path of the checkpoint; None if there is none yet.

        Raises:
            CheckpointError: if there are checkpoints but none fits: each is damaged, lacks a tracked value or
                has other shapes. None is removed then. Or if this process has no permission to read one, or
                another worker cannot read what the chief reads.
        """
        damaged: dict[int, str] = {}
        for step in self.workers.from_chief(self.steps[::-1]):
            problem = self._read(step)
            if problem is not None:
                damaged[step] = problem
                continue
            if self.workers.is_chief:
                for other, problem in damaged.items():
                    warn(f"{problem}; continuing from the one before, step {step}")
                    self._remove(other)
            return self._path(step)
        for problem in damaged.values():
            raise CheckpointError(problem)
        return None

    def _read(self, step: int) -> str | None:
        """Restores the tracked objects on all workers; returns the problem of the chief, or None."""
        assert self._checkpoint is not None, "track() has not been called"
        path, problem = self._path(step), None
        for file in (self._folder(step), *self._folder(step).glob("*")):
            if file.exists() and not os.access(file, os.R_OK):
                raise CheckpointError(f"{file} cannot be read: {os.strerror(errno.EACCES)}")
        try:
            with files.without_patterns(Path(path)) as readable:
                self._checkpoint.read(str(readable)).assert_existing_objects_matched()
        except tf.errors.ResourceExhaustedError:  # The checkpoint may be good; memory is short.
            raise
        except _UNREADABLE as error:
            reason = str(error).strip().split("\n", 1)[0]
            problem = f"{path} does not fit this run (another model, loss or optimizer, or damaged): {reason}"
        problems = self.workers.from_all(problem)
        blind = [number for number, found in enumerate(problems) if found is not None]
        if problems[0] is None and blind:
            raise CheckpointError(
                f"worker {blind[0]} cannot read the checkpoint {path} of the chief, worker 0; expected a "
                "folder that all workers see"
            )
        return problems[0]

    def _write(self, folder: Path) -> None:
        files.remove(folder)  # Something else of this name; `steps` lacks it.
        temporary = folder.with_name(f"{_WRITING}-{folder.name}")
        temporary.mkdir()
        assert self._checkpoint is not None
        self._checkpoint.write(str(temporary / _NAME))
        files.to_disk(temporary)
        files.rename(temporary, folder)

    def _remove(self, step: int) -> None:
        """Removes a checkpoint, renamed first, so that a kill leaves no incomplete one under its name."""
        folder = self._folder(step)
        temporary = folder.with_name(f"{_REMOVING}-{folder.name}")
        folder.rename(temporary)
        files.remove(temporary)

    def _remove_leftovers(self) -> None:
        assert self._directory is not None
        for prefix in (_WRITING, _REMOVING):
            for path in self._directory.glob(f"{prefix}-*"):
                files.remove(path)

    def _folder(self, step: int) -> Path:
        assert self._directory is not None
        return self._directory / f"step-{step}"

    def _path(self, step: int) -> str:
        return str(self._folder(step) / _NAME)


class _GraphCheckpoint(tf.train.Checkpoint):
    """A checkpoint that is written by a graph, which is traced once.

    Every tensor that TensorFlow 2.15 gives to Python leaks 48 bytes, three of them for each variable and
    checkpoint. A graph gives none, and is faster. Its variables have to stay the same.
    """

    def __init__(self, **state: Any) -> None:
        super().__init__(**state)

        @tf.function(input_signature=[tf.TensorSpec([], tf.string)], autograph=False)
        def write(path: tf.Tensor) -> None:
            with tf.device("/job:localhost/replica:0/task:0/device:CPU:0"):  # One device makes one file.
                tf.train.Checkpoint._write(self, path)

        self._traced = lambda path: write(path)  # A function itself would be a part of the checkpoint.

    def _write(self, file_prefix: str, *arguments: Any, **keywords: Any) -> str:
        """Writes the files; `write` calls it."""
        self._traced(file_prefix)
        return file_prefix


class TrainingInterrupted(Exception):
    """Training was asked to stop, and its state is saved.

    Attributes:
        step: number of steps made.
        checkpoint: path of the checkpoint; None if there is no folder for checkpoints.
    """

    def __init__(self, step: int, checkpoint: str | None) -> None:
        saved = f"saved as {checkpoint}; the same command continues from there" if checkpoint else "not saved"
        super().__init__(f"Interrupted after step {step}, {saved}.")
        self.step = step
        self.checkpoint = checkpoint


class StopRequest:
    """Context in which the first SIGINT or SIGTERM is only recorded; a second one has its usual effect.

    A signal that the block has not obeyed, by raising an exception, has its usual effect at the end of the
    block. Python calls signal handlers in the main thread; in any other thread the context does nothing.

    Attributes:
        requested: True once a signal has come.
    """

    def __init__(self) -> None:
        self.requested = False
        self._number = signal.SIGTERM
        self._previous: dict[int, Any] = {}

    def __enter__(self) -> StopRequest:
        if threading.current_thread() is threading.main_thread():
            for number in (signal.SIGINT, signal.SIGTERM):
                self._previous[number] = signal.signal(number, self._handle)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._restore()
        if self.requested and kind is None:
            signal.raise_signal(self._number)

    def _handle(self, number: int, frame: FrameType | None) -> None:
        self.requested, self._number = True, signal.Signals(number)
        self._restore()
        # print() fails if the signal comes while something is being printed.
        os.write(2, b"\nStopping after these steps; the same signal again stops at once.\n")

    def _restore(self) -> None:
        for number, handler in self._previous.items():
            signal.signal(number, handler)
        self._previous = {}
