"""Processes in which tasks are measured apart from one another."""

from __future__ import annotations

import multiprocessing
from collections.abc import Callable, Sequence
from typing import Any, Self


class Process:
    """A process that answers each time it is asked.

    It runs `serve(connection, *args)`, a function of a module. The function sends its first answer as soon
    as it is ready, and another one each time it receives something, until the connection is closed.

    Attributes:
        first: the first answer.
    """

    def __init__(self, serve: Callable[..., None], *args: Any, preload: Sequence[str] = ()) -> None:
        """Starts the process and waits for its first answer.

        Args:
            serve: the function.
            *args: its arguments behind the connection.
            preload: modules that are imported once for all processes, which start as copies.
        """
        context = multiprocessing.get_context("forkserver" if preload else "spawn")
        if preload:
            context.set_forkserver_preload(list(preload))
        self._connection, other = context.Pipe()
        self._process = context.Process(target=serve, args=(other, *args), daemon=True)
        self._process.start()
        other.close()
        self.first = self._receive()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._connection.close()
        self._process.join()

    def ask(self) -> Any:
        """The next answer of the process; RuntimeError if it has ended."""
        self._connection.send(True)
        return self._receive()

    def _receive(self) -> Any:
        try:
            return self._connection.recv()
        except EOFError:
            self._process.join()
            raise RuntimeError(f"the process ended with exit code {self._process.exitcode}") from None


def in_process(function: Callable[..., Any], *args: Any, preload: Sequence[str] = ()) -> Any:
    """The result of a function of a module, called in a new process; for `preload` see `Process`."""
    with Process(_call, function, *args, preload=preload) as process:
        return process.first


def _call(connection: Any, function: Callable[..., Any], *args: Any) -> None:
    connection.send(function(*args))
