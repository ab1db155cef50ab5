"""Checkpoints of a run: everything that has to survive a restart."""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import signal
import threading
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from types import FrameType, TracebackType
from typing import Any

import tensorflow as tf

from ccp_dml import durable, faults
from ccp_dml.distributed import replicas
from ccp_dml.distributed.workers import ALONE, Workers

_NAME = "state"
_WRITING = ".writing"
_REMOVING = ".removing"
_FOLDER = re.compile(r"step-(\d+)")
_UNREADABLE = (AssertionError, ValueError, IndexError, RuntimeError, OSError, tf.errors.OpError)


class CheckpointError(ValueError):
    """A checkpoint cannot be read, or is one of another model, loss or optimizer."""


class Checkpoints:
    """The last few checkpoints in a folder, and the best one: a sub-folder `step-N` for each.

    A checkpoint is written to another name and renamed once it is on the disk, so a folder of that name is
    whole; its values carry checksums, so damage is noticed when it is read. TensorFlow's own
    `CheckpointManager` finds its checkpoints by a list in a file, and one that is damaged or lost would
    silently begin the run anew.
    """

    def __init__(
        self,
        directory: str | os.PathLike[str],
        *,
        keep: int = 2,
        warn: Callable[[str], None] | None = None,
        workers: Workers = ALONE,
    ) -> None:
        """Says where checkpoints are; `track` comes next.

        Args:
            directory: folder; made, in a folder that exists, when the first checkpoint is saved.
            keep: how many of the last checkpoints to keep, at least 1.
            warn: told in one line when a damaged checkpoint is passed over.
            workers: who save and restore together; the chief alone writes and removes in the folder, which
                the others have to see if there is something to restore.

        Raises:
            ValueError: if `keep` is below 1.
        """
        if keep < 1:
            raise ValueError(f"The number of checkpoints to keep is {keep}; at least 1 is expected.")
        self._directory, self._keep = Path(directory), keep
        self._warn, self._workers = warn or (lambda message: None), workers
        self._checkpoint: tf.train.Checkpoint | None = None

    def track(self, **state: Any) -> None:
        """Says what a checkpoint consists of: trackable objects (models, modules, variables) by name."""
        self._checkpoint = tf.train.Checkpoint(**state)

    @property
    def steps(self) -> list[int]:
        """The steps of which there is a checkpoint, in order."""
        if not self._directory.is_dir():
            return []
        found = (_FOLDER.fullmatch(path.name) for path in self._directory.iterdir())
        return sorted(int(match[1]) for match in found if match)

    @property
    def latest(self) -> str | None:
        """Path of the newest checkpoint, None if there is none."""
        steps = self.steps
        return self._path(steps[-1]) if steps else None

    def save(self, step: int, best_step: int | None = None) -> str:
        """Writes a checkpoint, unless there is one of this step, and removes what need not be kept.

        Args:
            step: number of the present step.
            best_step: number of the step with the best score; its checkpoint is kept beside the last ones.

        Returns:
            The path.

        Raises:
            OSError: the folder cannot be written to.
        """
        assert self._checkpoint is not None, "track() has not been called"
        is_new = self._workers.from_chief(step not in self.steps)
        with replicas.whole_tables(self._checkpoint) if is_new else contextlib.nullcontext():
            if not self._workers.is_chief:
                return self._path(step)
            self._directory.mkdir(exist_ok=True)
            self._remove_leftovers()
            if is_new:
                self._write(step)
        for old in self.steps[: -self._keep]:
            if old != best_step:
                self._remove(old)
        return self._path(step)

    def restore(self) -> str | None:
        """Reads the newest checkpoint that is readable into what is tracked; newer, damaged ones are removed.

        Returns:
            The path, or None if there is no checkpoint yet.

        Raises:
            CheckpointError: if none can be read or fits: a tracked value is missing, or a shape differs. None
                is removed then. Or another worker cannot read what the chief can.
        """
        problems: list[str] = []
        damaged: list[int] = []
        for step in self._workers.from_chief(self.steps[::-1]):
            problem = self._problem_of(step)
            if problem is not None:
                problems.append(problem)
                damaged.append(step)
                continue
            if self._workers.is_chief:
                for other, problem in zip(damaged, problems):
                    self._warn(f"{problem}; going on from the one before, step {step}")
                    self._remove(other)
            return self._path(step)
        if problems:
            raise CheckpointError(problems[0])
        return None

    def _problem_of(self, step: int) -> str | None:
        """Reads a checkpoint on all workers; why the chief cannot, None if it can.

        Raises:
            CheckpointError: the chief can, and another worker cannot.
        """
        problem = None
        try:
            self.read(self._path(step))
        except CheckpointError as error:
            problem = str(error)
        problems = self._workers.from_all(problem)
        blind = [number for number, found in enumerate(problems) if found is not None]
        if problems[0] is None and blind:
            raise CheckpointError(
                f"worker {blind[0]} cannot read the checkpoint {self._path(step)} of the chief, worker 0; "
                "expected a folder that all workers see"
            )
        return problems[0]

    def read(self, path: str) -> None:
        """Reads one checkpoint into what is tracked.

        Raises:
            CheckpointError: if it cannot be read or lacks a tracked value, or a shape differs.
        """
        assert self._checkpoint is not None, "track() has not been called"
        try:
            self._checkpoint.read(path).assert_existing_objects_matched()
        except tf.errors.ResourceExhaustedError:  # No memory: that says nothing about the checkpoint.
            raise
        except _UNREADABLE as error:
            reason = str(error).strip().split("\n", 1)[0]
            raise CheckpointError(
                f"{path} does not fit this run (another model, loss or optimizer, or damaged): {reason}"
            ) from error

    def _write(self, step: int) -> None:
        assert self._checkpoint is not None
        temporary = self._directory / f"{_WRITING}-{step}"
        temporary.mkdir()
        faults.passage("checkpoint_write")
        self._checkpoint.write(str(temporary / _NAME))
        durable.to_disk(temporary)
        faults.passage("checkpoint_rename")
        durable.rename(temporary, self._folder(step))

    def _remove(self, step: int) -> None:
        """Renamed first, so that a kill leaves no half of it under its name."""
        temporary = self._directory / f"{_REMOVING}-{step}"
        self._folder(step).rename(temporary)
        faults.passage("checkpoint_remove")
        shutil.rmtree(temporary)

    def _remove_leftovers(self) -> None:
        for prefix in (_WRITING, _REMOVING):
            for path in self._directory.glob(f"{prefix}-*"):
                shutil.rmtree(path)

    def _folder(self, step: int) -> Path:
        return self._directory / f"step-{step}"

    def _path(self, step: int) -> str:
        return str(self._folder(step) / _NAME)


class Saver:
    """Saves a run, and knows when it is time to.

    Durations are those of a clock that never goes back, so a change of the computer's time does no harm.
    """

    def __init__(
        self,
        checkpoints: Checkpoints | None,
        *,
        every_steps: int = 0,
        every_minutes: float = 0.0,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """Creates the schedule.

        Args:
            checkpoints: where to save; None: nowhere.
            every_steps: steps since the last checkpoint that make one due; 0: none do.
            every_minutes: minutes since then that do; 0: none do.
            clock: seconds, from any beginning.

        Raises:
            ValueError: if a number is negative.
        """
        if every_steps < 0 or every_minutes < 0:
            raise ValueError(
                f"Checkpoints every {every_steps} steps or {every_minutes} minutes; at least 0 is expected."
            )
        self._checkpoints = checkpoints
        self._every_steps, self._every_seconds, self._clock = every_steps, 60.0 * every_minutes, clock
        self._step, self._time = 0, clock()

    def track(self, state: Mapping[str, Any]) -> None:
        """Says what is saved: trackable objects by name."""
        if self._checkpoints is not None:
            self._checkpoints.track(**state)

    def restore(self) -> bool:
        """Reads the newest checkpoint; see `Checkpoints.restore`. Returns whether there is one."""
        return self._checkpoints is not None and self._checkpoints.restore() is not None

    @property
    def latest(self) -> str | None:
        """Path of the newest checkpoint, None if there is none."""
        return None if self._checkpoints is None else self._checkpoints.latest

    def begin(self, step: int) -> None:
        """Says at which step training begins or goes on."""
        self._step, self._time = step, self._clock()

    def due(self, step: int) -> bool:
        """Whether it is time for a checkpoint between two epochs' ends."""
        if self._checkpoints is None:
            return False
        by_steps = 0 < self._every_steps <= step - self._step
        return by_steps or 0 < self._every_seconds <= self._clock() - self._time

    def save(self, step: int, best_step: int | None = None) -> str | None:
        """Saves; see `Checkpoints.save`. Returns the path, None if there is nowhere to save."""
        if self._checkpoints is None:
            return None
        path = self._checkpoints.save(step, best_step)
        self.begin(step)
        return path


class Interrupted(Exception):
    """Training was asked to stop and has saved where it was.

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
    """Context in which the first SIGINT or SIGTERM is only noted; a second one acts as usual.

    Python calls signal handlers in the main thread; entered elsewhere the context does nothing.

    Attributes:
        requested: whether a signal has come.
    """

    def __init__(self) -> None:
        self.requested = False
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

    def _handle(self, number: int, frame: FrameType | None) -> None:
        self.requested = True
        self._restore()
        # Not by print, which fails if the signal has come while something is being printed.
        os.write(2, b"\nStopping at the next safe point; the same signal again stops at once.\n")

    def _restore(self) -> None:
        for number, handler in self._previous.items():
            signal.signal(number, handler)
        self._previous = {}
