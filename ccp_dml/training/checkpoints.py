"""Checkpoints of a run: everything that has to survive a restart, and when it is saved."""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import tensorflow as tf

from ccp_dml import files
from ccp_dml.distributed import replicas
from ccp_dml.distributed.workers import SINGLE_WORKER, Workers
from ccp_dml.training.options import CheckpointOptions

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
    `CheckpointManager` finds its checkpoints by a list in a file, and a damaged or lost list would silently
    begin the run anew.

    Attributes:
        workers: processes that save and restore together.
    """

    def __init__(
        self,
        directory: str | os.PathLike[str] | None,
        options: CheckpointOptions | None = None,
        *,
        warn: Callable[[str], None] = lambda message: None,
        workers: Workers = SINGLE_WORKER,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """Takes the folder; `track` comes next.

        Args:
            directory: folder; made, in a folder that exists, when the first checkpoint is saved. None:
                nothing is saved.
            options: how many checkpoints to keep, and when one is due between the ends of two epochs.
            warn: called with one line when a damaged checkpoint is passed over.
            workers: processes that save and restore together; the chief alone writes and removes in the
                folder, which the others have to see if there is something to restore.
            clock: seconds since any time in the past, never going back.
        """
        self._directory = None if directory is None else Path(directory)
        self._options = options or CheckpointOptions()
        self._warn, self.workers, self._clock = warn, workers, clock
        self._checkpoint: tf.train.Checkpoint | None = None
        self.begin(0)

    def track(self, **state: Any) -> None:
        """Takes the content of a checkpoint: trackable objects (models, modules, variables) by name."""
        self._checkpoint = tf.train.Checkpoint(**state)

    def begin(self, step: int) -> None:
        """Takes the step at which training begins or continues."""
        self._step, self._time = step, self._clock()

    def due(self, step: int) -> bool:
        """Whether it is time for a checkpoint between the ends of two epochs."""
        if self._directory is None:
            return False
        every_steps, every_seconds = self._options.checkpoint_steps, 60 * self._options.checkpoint_minutes
        by_steps = 0 < every_steps <= step - self._step
        return by_steps or 0 < every_seconds <= self._clock() - self._time

    @property
    def steps(self) -> list[int]:
        """The steps of which there is a checkpoint, in order."""
        if self._directory is None or not self._directory.is_dir():
            return []
        found = (_FOLDER.fullmatch(path.name) for path in self._directory.iterdir())
        return sorted(int(match[1]) for match in found if match)

    @property
    def latest(self) -> str | None:
        """Path of the newest checkpoint, None if there is none."""
        steps = self.steps
        return self._path(steps[-1]) if steps else None

    def save(self, step: int, best_step: int | None = None) -> str | None:
        """Writes a checkpoint, unless there is one of this step, and removes those that need not be kept.

        Args:
            step: number of the present step.
            best_step: number of the step with the best score; its checkpoint is kept besides the last ones.

        Returns:
            The path; None without a folder.

        Raises:
            OSError: if the folder cannot be written to.
        """
        if self._directory is None:
            return None
        assert self._checkpoint is not None, "track() has not been called"
        is_new = self.workers.from_chief(step not in self.steps)
        with replicas.gathered_tables(self._checkpoint) if is_new else contextlib.nullcontext():
            if self.workers.is_chief:
                self._directory.mkdir(exist_ok=True)
                self._remove_leftovers()
                if is_new:
                    self._write(self._folder(step), self._checkpoint)
                for old in self.steps[: -self._options.checkpoint_keep]:
                    if old != best_step:
                        self._remove(old)
        self.begin(step)
        return self._path(step)

    def restore(self) -> str | None:
        """Reads the newest readable checkpoint into the tracked objects; removes newer, damaged ones.

        Returns:
            The path, or None if there is no checkpoint yet.

        Raises:
            CheckpointError: if none can be read or fits: a tracked value is missing, or a shape differs. None
                is removed then. Or if another worker cannot read what the chief can.
        """
        problems: list[str] = []
        damaged: list[int] = []
        for step in self.workers.from_chief(self.steps[::-1]):
            problem = self._problem_of(step)
            if problem is not None:
                problems.append(problem)
                damaged.append(step)
                continue
            if self.workers.is_chief:
                for other, problem in zip(damaged, problems):
                    self._warn(f"{problem}; going on from the one before, step {step}")
                    self._remove(other)
            return self._path(step)
        if problems:
            raise CheckpointError(problems[0])
        return None

    def read(self, path: str) -> None:
        """Reads one checkpoint into the tracked objects.

        Raises:
            CheckpointError: if it cannot be read or lacks a tracked value, or a shape differs.
        """
        assert self._checkpoint is not None, "track() has not been called"
        try:
            self._checkpoint.read(path).assert_existing_objects_matched()
        except tf.errors.ResourceExhaustedError:  # Too little memory, whatever the checkpoint.
            raise
        except _UNREADABLE as error:
            reason = str(error).strip().split("\n", 1)[0]
            raise CheckpointError(
                f"{path} does not fit this run (another model, loss or optimizer, or damaged): {reason}"
            ) from error

    def _problem_of(self, step: int) -> str | None:
        """Reads a checkpoint on all workers; the reason why the chief cannot, None if it can.

        Raises:
            CheckpointError: if the chief can, and another worker cannot.
        """
        problem = None
        try:
            self.read(self._path(step))
        except CheckpointError as error:
            problem = str(error)
        problems = self.workers.from_all(problem)
        blind = [number for number, found in enumerate(problems) if found is not None]
        if problems[0] is None and blind:
            raise CheckpointError(
                f"worker {blind[0]} cannot read the checkpoint {self._path(step)} of the chief, worker 0; "
                "expected a folder that all workers see"
            )
        return problems[0]

    @staticmethod
    def _write(folder: Path, checkpoint: tf.train.Checkpoint) -> None:
        temporary = folder.with_name(f"{_WRITING}-{folder.name}")
        temporary.mkdir()
        checkpoint.write(str(temporary / _NAME))
        files.to_disk(temporary)
        files.rename(temporary, folder)

    def _remove(self, step: int) -> None:
        """Deletes a checkpoint; renamed first, so that a kill leaves no half of it under its name."""
        folder = self._folder(step)
        temporary = folder.with_name(f"{_REMOVING}-{folder.name}")
        folder.rename(temporary)
        shutil.rmtree(temporary)

    def _remove_leftovers(self) -> None:
        assert self._directory is not None
        for prefix in (_WRITING, _REMOVING):
            for path in self._directory.glob(f"{prefix}-*"):
                shutil.rmtree(path)

    def _folder(self, step: int) -> Path:
        assert self._directory is not None
        return self._directory / f"step-{step}"

    def _path(self, step: int) -> str:
        return str(self._folder(step) / _NAME)
