"""One process at a time works in a run directory; another one is refused and told which it is."""

from __future__ import annotations

import contextlib
import os
import socket
from collections.abc import Iterator
from pathlib import Path

from ccp_dml.errors import ConfigError
from ccp_dml.file_lock import try_lock

NAME = ".lock"


@contextlib.contextmanager
def run_lock(run_dir: str | os.PathLike[str]) -> Iterator[None]:
    """Context that only one process can be in for the same folder, which is made if it is missing.

    The operating system frees the lock of a process that was killed; the file stays, and means nothing then.
    If nothing else was written, file and folder are removed at the end.

    Raises:
        ConfigError: another process is in it, or the folder cannot be written to.
    """
    folder = Path(run_dir)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        file = (folder / NAME).open("a+", encoding="utf-8")
    except OSError as error:
        raise ConfigError(f"--run_dir={run_dir}: cannot be written: {error.strerror}") from None
    with file:
        if not try_lock(file):
            file.seek(0)
            raise ConfigError(
                f"--run_dir={run_dir}: {file.read().strip() or 'another process'} is working in it; "
                "expected another folder, or that process to end"
            )
        file.truncate(0)
        file.write(f"process {os.getpid()} on {socket.gethostname()}\n")
        file.flush()
        try:
            yield
        finally:
            _remove_if_alone(folder)


def _remove_if_alone(folder: Path) -> None:
    """Leaves no folder behind in which nothing but the lock was ever written."""
    with contextlib.suppress(OSError):
        if [path.name for path in folder.iterdir()] == [NAME]:
            (folder / NAME).unlink()
            folder.rmdir()
