"""Worker processes on this machine, which find one another by TF_CONFIG."""

from __future__ import annotations

import contextlib
import json
import os
import socket
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from tests import ROOT

Done = subprocess.CompletedProcess[str]


@contextlib.contextmanager
def started(
    *arguments: Sequence[str | Path], environments: Mapping[int, Mapping[str, str]] | None = None
) -> Iterator[list[subprocess.Popen[str]]]:
    """Workers of one cluster, each a Python with arguments of its own; they are killed at the end.

    Args:
        *arguments: of each worker.
        environments: what some of them find in theirs besides, by number.
    """
    addresses, processes = _free_addresses(len(arguments)), []
    try:
        for index, own in enumerate(arguments):
            config = {"cluster": {"worker": addresses}, "task": {"type": "worker", "index": index}}
            environment = {**os.environ, "TF_CONFIG": json.dumps(config)} | {
                **(environments or {}).get(index, {})
            }
            command = [sys.executable, *map(str, own)]
            pipe = subprocess.PIPE
            processes.append(
                subprocess.Popen(command, cwd=ROOT, env=environment, stdout=pipe, stderr=pipe, text=True)
            )
        yield processes
    finally:
        for process in processes:
            process.kill()
            process.communicate()


def outcome(process: subprocess.Popen[str]) -> Done:
    """Waits for the end of a worker."""
    texts = process.communicate(timeout=300)
    return subprocess.CompletedProcess(process.args, process.returncode, *texts)


def run_workers(
    *arguments: Sequence[str | Path], environments: Mapping[int, Mapping[str, str]] | None = None
) -> list[Done]:
    """Runs workers to their ends."""
    with started(*arguments, environments=environments) as processes:
        return [outcome(process) for process in processes]


def files_of_two(module: str, folder: Path) -> list[Path]:
    """Two workers run a module, each with the name of a file that it writes."""
    files = [folder / f"{index}.npz" for index in range(2)]
    for done in run_workers(*(["-m", module, file] for file in files)):
        assert done.returncode == 0, done.stderr[-4000:]
    return files


def _free_addresses(count: int) -> list[str]:
    with contextlib.ExitStack() as stack:
        sockets = [stack.enter_context(socket.socket()) for _ in range(count)]
        for found in sockets:
            found.bind(("localhost", 0))
        return [f"localhost:{found.getsockname()[1]}" for found in sockets]
