"""Processes of their own for what is measured, that answer as often as they are asked."""

from __future__ import annotations

from collections.abc import Callable
from multiprocessing.context import BaseContext
from typing import Any, Self


class Process:
    """A process that runs a function of a connection and of other arguments.

    The function sends what it has to say first, and then something each time it receives anything, until
    the connection is closed.
    """

    def __init__(self, context: BaseContext, serve: Callable[..., None], *args: Any) -> None:
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
        """The answer of the process; RuntimeError if it has ended."""
        self._connection.send(True)
        return self._receive()

    def _receive(self) -> Any:
        try:
            return self._connection.recv()
        except EOFError:
            self._process.join()
            raise RuntimeError(f"the process ended with exit code {self._process.exitcode}") from None
