"""One process at a time prepares a data set; the others wait for it and find the data ready."""

from __future__ import annotations

import contextlib
import os
import pathlib
import sys
from collections.abc import Iterator

from ccp_dml.file_lock import try_lock, wait_for_lock


@contextlib.contextmanager
def preparation_lock(prepared_dir: str | os.PathLike[str], name: str) -> Iterator[None]:
    """Context that only one process can be in for the same folder and data set.

    The operating system frees the lock of a process that was killed. Where the folder cannot be written to,
    nothing is locked: data that are there already can be read.

    Args:
        prepared_dir: folder of prepared data; made if it is missing.
        name: name of the data set.
    """
    folder = pathlib.Path(prepared_dir).expanduser()
    with contextlib.ExitStack() as stack:
        with contextlib.suppress(OSError):
            folder.mkdir(parents=True, exist_ok=True)
            file = stack.enter_context((folder / f".{name}.lock").open("w"))
            if not try_lock(file):
                waiting = f"Waiting for another process that opens the data set {name} …"
                print(waiting, file=sys.stderr, flush=True)
                wait_for_lock(file)
        yield
