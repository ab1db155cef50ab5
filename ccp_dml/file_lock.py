"""Locks on open files: the operating system frees that of a process that ended, however it ended."""

from __future__ import annotations

from typing import IO, Any

try:
    import fcntl
except ImportError:  # Not on Windows, where two processes must not be given one folder.
    fcntl = None  # type: ignore[assignment]


def try_lock(file: IO[Any]) -> bool:
    """Locks a file until it is closed, unless another process has; returns whether it is locked now."""
    if fcntl is None:
        return True
    try:
        fcntl.flock(file.fileno(), fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def wait_for_lock(file: IO[Any]) -> None:
    """Locks a file until it is closed, once no other process has."""
    if fcntl is not None:
        fcntl.flock(file.fileno(), fcntl.LOCK_EX)
