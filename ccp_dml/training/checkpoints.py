"""Checkpoints of a run: everything that has to survive a restart."""

from __future__ import annotations

import os
from typing import Any

import tensorflow as tf


class CheckpointError(ValueError):
    """A checkpoint cannot be read, or is one of another model, loss or optimizer."""


class Checkpoints:
    """The last few checkpoints in a folder, named by step.

    A thin layer over `tf.train.CheckpointManager`: a checkpoint that a kill leaves half written is never
    `latest`.
    """

    def __init__(self, directory: str | os.PathLike[str], *, keep: int = 2) -> None:
        """Creates the manager; `track` comes next.

        Args:
            directory: folder, created when the first checkpoint is saved.
            keep: how many checkpoints to keep, at least 1.

        Raises:
            ValueError: if `keep` is below 1.
        """
        if keep < 1:
            raise ValueError(f"The number of checkpoints to keep is {keep}; at least 1 is expected.")
        self._directory, self._keep = os.fspath(directory), keep
        self._manager: tf.train.CheckpointManager | None = None

    def track(self, **state: Any) -> None:
        """Says what a checkpoint consists of: trackable objects (models, modules, variables) by name."""
        self._checkpoint = tf.train.Checkpoint(**state)
        self._manager = tf.train.CheckpointManager(self._checkpoint, self._directory, max_to_keep=self._keep)

    @property
    def latest(self) -> str | None:
        """Path of the newest checkpoint, None if there is none."""
        return tf.train.latest_checkpoint(self._directory)

    def save(self, step: int) -> str:
        """Writes a checkpoint, unless the newest one is of this step; returns its path."""
        assert self._manager is not None, "track() has not been called"
        latest = self._manager.latest_checkpoint
        if latest is not None and latest.endswith(f"-{step}"):
            return latest
        return self._manager.save(checkpoint_number=step)

    def restore(self, path: str | None = None) -> str | None:
        """Reads a checkpoint into what is tracked.

        Args:
            path: which one; None for the newest.

        Returns:
            The path, or None if there is no checkpoint yet.

        Raises:
            CheckpointError: if it cannot be read or lacks a tracked value, or a shape differs.
        """
        path = path or self.latest
        if path is None:
            return None
        try:
            self._checkpoint.restore(path).assert_existing_objects_matched()
        except (AssertionError, ValueError, IndexError, RuntimeError, tf.errors.OpError) as error:
            reason = str(error).strip().split("\n", 1)[0]
            raise CheckpointError(
                f"{path} does not fit this run (another model, loss or optimizer, or damaged): {reason}"
            ) from error
        return path
