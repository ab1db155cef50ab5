"""Interruption of training by Ctrl-C or SIGTERM: a request to stop after the present chunk of steps."""

from __future__ import annotations

import os
import signal
import threading
from types import FrameType, TracebackType
from typing import Any


class TrainingInterrupted(Exception):
    """Training was asked to stop, and its state is saved.

    Attributes:
        step: number of steps made.
        checkpoint: path of the checkpoint; None if there is no folder for checkpoints.
    """

    def __init__(self, step: int, checkpoint: str | None) -> None:
        saved = f"saved as {checkpoint}; the same command continues from there" if checkpoint else "not saved"
        super().__init__(f"Interrupted after step {step}, {saved}.")
        self.step = step
        self.checkpoint = checkpoint


class StopRequest:
    """Context in which the first SIGINT or SIGTERM is only recorded; a second one has its usual effect.

    Python calls signal handlers in the main thread; in any other thread the context does nothing.

    Attributes:
        requested: True once a signal has come.
    """

    def __init__(self) -> None:
        self.requested = False
        self._previous: dict[int, Any] = {}

    def __enter__(self) -> StopRequest:
        if threading.current_thread() is threading.main_thread():
            for number in (signal.SIGINT, signal.SIGTERM):
                self._previous[number] = signal.signal(number, self._handle)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._restore()

    def _handle(self, number: int, frame: FrameType | None) -> None:
        self.requested = True
        self._restore()
        # print() fails if the signal comes while something is being printed.
        os.write(2, b"\nStopping after these steps; the same signal again stops at once.\n")

    def _restore(self) -> None:
        for number, handler in self._previous.items():
            signal.signal(number, handler)
        self._previous = {}
