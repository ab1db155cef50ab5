"""Python functions called by TensorFlow's threads, and the end of the interpreter."""

from __future__ import annotations

import functools
import threading
import time
import weakref
from collections.abc import Callable
from typing import Any

_QUIET_SECONDS = 0.02
_MOST_SECONDS = 2.0


class _Gate:
    """Lets calls through, one at a time, until it is closed."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._closed = False
        self._arrivals = 0

    def call(self, function: Callable[..., Any], arguments: tuple[Any, ...]) -> Any:
        self._arrivals += 1
        with self._lock:
            if self._closed:
                raise StopIteration
            return function(*arguments)

    def close(self, callers: weakref.ref[Any]) -> None:
        """Waits for the call under way, and then until no further ones arrive, if anybody is left to call."""
        if callers() is None:
            return
        with self._lock:
            self._closed = True
        give_up = time.monotonic() + _MOST_SECONDS
        arrivals = -1
        while arrivals != self._arrivals and time.monotonic() < give_up:
            arrivals = self._arrivals
            time.sleep(_QUIET_SECONDS)


def guarded(function: Callable[..., Any]) -> Callable[..., Any]:
    """Returns the function, made to be called by an input pipeline; its calls are serialised.

    A pipeline that reads ahead calls Python from a thread of its own. If it does so while the interpreter is
    being torn down, the call never returns, and the pipeline's destructor waits for it for ever: the process
    hangs. That happens when a pipeline is alive at exit, say in the traceback of the error that ends a
    program. A guarded function ends the pipeline's reading before the interpreter goes.
    """
    gate = _Gate()

    @functools.wraps(function)
    def call(*arguments: Any) -> Any:
        return gate.call(function, arguments)

    weakref.finalize(call, gate.close, weakref.ref(call))
    return call
