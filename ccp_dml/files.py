"""Durable files, which are complete on the disk or not there at all; checksums; locks on folders."""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import json
import os
import shutil
import socket
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from ccp_dml.errors import ConfigError

# Files that a process may leave in a run directory without having begun a run.
LOCK, LOCK_HOLDER = ".lock", ".lock_holder"
_PARTIAL = ".partial"
_CHECKSUM = "sha256"


def partial(file: Path) -> Path:
    """Returns the name of a file while it is being written."""
    return file.with_name(file.name + _PARTIAL)


def write_text(file: Path, text: str) -> None:
    """Writes a file in UTF-8; see `write_bytes`."""
    write_bytes(file, text.encode())


def write_bytes(file: Path, content: bytes) -> None:
    """Writes a file under another name, and renames it once it is on the disk.

    Raises:
        OSError: if the folder cannot be written to; an earlier file stays as it was.
    """
    unfinished = partial(file)
    with unfinished.open("wb") as stream:
        stream.write(content)
        stream.flush()
        os.fsync(stream.fileno())
    os.replace(unfinished, file)
    _sync(file.parent)


def checksum(content: str | bytes) -> str:
    """Returns the SHA-256 of bytes, or of text in UTF-8, in hexadecimal."""
    return hashlib.sha256(content.encode() if isinstance(content, str) else content).hexdigest()


def write_json(file: Path, values: dict[str, Any]) -> None:
    """Writes a JSON object with a checksum of its values in it; see `write_text`."""
    sealed = {**values, _CHECKSUM: checksum(json.dumps(values, indent=2))}
    write_text(file, json.dumps(sealed, indent=2) + "\n")


def read_json(file: Path) -> dict[str, Any]:
    """Reads the values that `write_json` wrote; an object without a checksum is read as it is.

    Raises:
        ValueError: if the file cannot be read or is damaged; the message is the reason.
    """
    try:
        values = json.loads(file.read_text(encoding="utf-8"))
    except OSError as error:
        raise ValueError(error.strerror) from None
    except (ValueError, RecursionError):
        raise ValueError("it is damaged, as it is not JSON") from None
    if not isinstance(values, dict):
        raise ValueError("it is damaged, as it holds no JSON object")
    written = values.pop(_CHECKSUM, None)
    if written is not None and written != checksum(json.dumps(values, indent=2)):
        raise ValueError("it was damaged or changed, as its checksum does not match")
    return values


@contextlib.contextmanager
def without_patterns(path: Path) -> Iterator[Path]:
    """Context with a name of the file that TensorFlow does not read as a pattern.

    TensorFlow's checkpoint readers expand stars, question marks, brackets and backslashes. In the context, a
    link to the folder has a name without them.
    """
    if not set("*?[]\\") & set(str(path)):
        yield path
        return
    with tempfile.TemporaryDirectory(prefix="ccp_dml-") as folder:
        link = Path(folder) / "link"
        link.symlink_to(path.parent.absolute(), target_is_directory=True)
        yield link / path.name


def remove(path: Path) -> None:
    """Removes a file, a link or a folder with its content, if it exists."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


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
def run_lock(run_dir: str | os.PathLike[str], group: Path | None = None) -> Iterator[None]:
    """Locks a run directory, which is made if it is missing, for the duration of the context.

    The operating system frees the lock of a process that was killed; the files that stay do no harm. If
    nothing else was written, the folder is removed at the end.

    Args:
        run_dir: the folder.
        group: the folder of the group that the run belongs to. Processes may work in several runs of a group
            at once, but not while one works in the group itself.

    Raises:
        ConfigError: if another process has the lock, or the folder cannot be written to.
    """
    folder = Path(run_dir)
    with contextlib.ExitStack() as stack:
        try:
            folder.mkdir(parents=True, exist_ok=True)
            if group is not None:
                stack.enter_context(_locked(group, fcntl.LOCK_SH))
            stack.enter_context(_locked(folder, fcntl.LOCK_EX))
            (folder / LOCK_HOLDER).write_text(f"process {os.getpid()} on {socket.gethostname()}\n", "utf-8")
        except OSError as error:
            raise ConfigError(f"--run_dir={run_dir}: cannot be written: {error.strerror}") from None
        try:
            yield
        finally:
            (folder / LOCK_HOLDER).unlink(missing_ok=True)
            _remove_if_unused(folder)


@contextlib.contextmanager
def _locked(folder: Path, kind: int) -> Iterator[None]:
    """Context with a lock on a folder, shared (LOCK_SH) or exclusive (LOCK_EX); see `run_lock`.

    It calls `flock` directly, because `filelock` has no shared locks.
    """
    descriptor = os.open(folder / LOCK, os.O_RDWR | os.O_CREAT, 0o644)
    try:
        try:
            fcntl.flock(descriptor, kind | fcntl.LOCK_NB)
        except BlockingIOError:
            holder = folder / LOCK_HOLDER
            found = holder.read_text(encoding="utf-8", errors="replace").strip() if holder.exists() else ""
            raise ConfigError(
                f"--run_dir={folder}: {found or 'another process'} is working in it; "
                "expected another folder, or that process to end"
            ) from None
        yield
    finally:
        os.close(descriptor)


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
        if [path.name for path in folder.iterdir()] == [LOCK]:
            shutil.rmtree(folder)


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
