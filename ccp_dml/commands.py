"""What the commands have in common: quiet TensorFlow, errors in one line, exit codes."""

from __future__ import annotations

import argparse
import contextlib
import errno
import os
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from types import FrameType
from typing import NoReturn

from ccp_dml import environment
from ccp_dml.errors import Interrupted, UserError

BAD_INPUT = 2
INTERRUPTED = 130
OUTPUT_CLOSED = 141


def run(action: Callable[[], object]) -> int:
    """Runs `action` and returns the exit code of the command.

    Bad input gives one line on standard error and code 2, and so does a full disk; an interruption one line
    and code 130. Whoever closes standard output early (`| head`) ends the command silently with code 141. Any
    other exception is a defect and keeps its traceback.
    """
    environment.quiet()
    try:
        with _termination_as_interrupt():
            action()
        sys.stdout.flush()
    except BrokenPipeError:
        # What is still buffered would fail once more when Python exits.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return OUTPUT_CLOSED
    except UserError as error:
        _print_line("error", error)
        return BAD_INPUT
    except Interrupted as interruption:
        _print_line("interrupted", interruption)
        return INTERRUPTED
    except KeyboardInterrupt as interruption:
        _print_line("interrupted", f"stopped by {str(interruption) or 'Ctrl-C'}")
        return INTERRUPTED
    except Exception as error:
        # Python, TensorFlow and the record writer each have a type of their own for it.
        if os.strerror(errno.ENOSPC) not in str(error):
            raise
        _print_line("error", f"the disk is full: {error}")
        return BAD_INPUT
    return 0


def warn(message: str) -> None:
    """Prints one line of warning on standard error."""
    _print_line("warning", message)


class Parser(argparse.ArgumentParser):
    """A parser of a few arguments that reports a mistake as every command does."""

    def __init__(self, program: str, description: str) -> None:
        super().__init__(prog=program, description=description, allow_abbrev=False)

    def error(self, message: str) -> NoReturn:
        """Reports a mistake in one line instead of usage and message."""
        raise UserError(f"{message}; --help lists the arguments")


@contextlib.contextmanager
def _termination_as_interrupt() -> Iterator[None]:
    """Lets SIGTERM do what Ctrl-C does, so that files are closed and the user is told."""

    def interrupt(number: int, frame: FrameType | None) -> NoReturn:
        raise KeyboardInterrupt(signal.Signals(number).name)

    if threading.current_thread() is not threading.main_thread():  # Python handles signals in that one only.
        yield
        return
    previous = signal.signal(signal.SIGTERM, interrupt)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, previous)


def _print_line(kind: str, message: object) -> None:
    print(f"{kind}: {' '.join(str(message).split())}", file=sys.stderr, flush=True)
