"""Durable files, which are complete on the disk or not there at all, and locks on folders."""

from __future__ import annotations

import contextlib
import os
import shutil
import socket
import sys
from collections.abc import Iterator
from pathlib import Path

from ccp_dml.errors import ConfigError

# Files that a process may leave in a run directory without having begun a run.
LOCK, LOCK_HOLDER = ".lock", ".lock_holder"
_PARTIAL = ".partial"


def partial(file: Path) -> Path:
    """Returns the name of a file while it is being written."""
    return file.with_name(file.name + _PARTIAL)


def write_text(file: Path, text: str) -> None:
    """Writes a file in UTF-8 under another name, and renames it once it is on the disk.

    Raises:
        OSError: if the folder cannot be written to; an earlier file stays as it was.
    """
    unfinished = partial(file)
    with unfinished.open("w", encoding="utf-8", newline="") as stream:
        stream.write(text)
        stream.flush()
        os.fsync(stream.fileno())
    os.replace(unfinished, file)
    _sync(file.parent)


def to_disk(folder: Path) -> None:
    """Waits until all files below a folder are on the disk, as they have to be before it is renamed."""
    for path in folder.rglob("*"):
        _sync(path)
    _sync(folder)


def rename(unfinished: Path, name: Path) -> None:
    """Renames a folder whose files are on the disk, and waits until the new name is on the disk too."""
    unfinished.rename(name)
    _sync(name.parent)


@contextlib.contextmanager
def run_lock(run_dir: str | os.PathLike[str]) -> Iterator[None]:
    """Locks a run directory, which is made if it is missing, for the duration of the context.

    The operating system frees the lock of a process that was killed; the files that stay do no harm. If
    nothing else was written, the folder is removed at the end.

    Raises:
        ConfigError: if another process has the lock, or the folder cannot be written to.
    """
    import filelock  # It imports asyncio, which would make `--help` noticeably slower.

    folder = Path(run_dir)
    # Not in the lock file, which is emptied by every process that tries to lock it.
    holder = folder / LOCK_HOLDER
    try:
        folder.mkdir(parents=True, exist_ok=True)
        lock = filelock.FileLock(folder / LOCK).acquire(timeout=0)
    except filelock.Timeout:
        found = holder.read_text(encoding="utf-8").strip() if holder.exists() else "another process"
        raise ConfigError(
            f"--run_dir={run_dir}: {found} is working in it; expected another folder, or that process to end"
        ) from None
    except OSError as error:
        raise ConfigError(f"--run_dir={run_dir}: cannot be written: {error.strerror}") from None
    with lock:
        holder.write_text(f"process {os.getpid()} on {socket.gethostname()}\n", encoding="utf-8")
        try:
            yield
        finally:
            _remove_if_unused(folder)


@contextlib.contextmanager
def preparation_lock(prepared_dir: str | os.PathLike[str], name: str) -> Iterator[None]:
    """Locks the prepared data of a data set for the duration of the context; waits for other processes.

    If the folder cannot be written to, nothing is locked: data that is already there can be read.

    Args:
        prepared_dir: folder of prepared data; made if it is missing.
        name: name of the data set.
    """
    import filelock

    folder = Path(prepared_dir).expanduser()
    with contextlib.ExitStack() as stack:
        with contextlib.suppress(OSError):
            folder.mkdir(parents=True, exist_ok=True)
            lock = filelock.FileLock(folder / f".{name}.lock")
            try:
                lock.acquire(timeout=0)
            except filelock.Timeout:
                waiting = f"Waiting for another process that opens the data set {name} …"
                print(waiting, file=sys.stderr, flush=True)
                lock.acquire()
            stack.callback(lock.release)
        yield


def _remove_if_unused(folder: Path) -> None:
    """Removes a folder in which no run has begun."""
    with contextlib.suppress(OSError):
        if {path.name for path in folder.iterdir()} == {LOCK, LOCK_HOLDER}:
            shutil.rmtree(folder)


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
