"""Shared code of the commands: quiet TensorFlow, errors in one line, exit codes."""

from __future__ import annotations

import argparse
import contextlib
import errno
import io
import os
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from types import FrameType
from typing import NoReturn

from ccp_dml import environment
from ccp_dml.errors import Interrupted, UserError
from ccp_dml.kinds import PathText

BAD_INPUT = 2
INTERRUPTED = 130
OUTPUT_CLOSED = 141

_PATH = PathText("a path")

# Each command imports this module first: one line, in place of the traceback of its next import.
environment.check_packages()


def run(action: Callable[[], object]) -> int:
    """Runs `action` and returns the exit code of the command.

    Bad input and a full disk give one line on standard error and code 2, an interruption one line and code
    130. If standard output is closed early (`| head`), the command ends silently with code 141. Any other
    exception is a defect and keeps its traceback.
    """
    environment.quiet()
    _open_streams()
    try:
        _check_working_directory()
        with _termination_as_interrupt():
            action()
        sys.stdout.flush()
    except BrokenPipeError:
        # Otherwise the rest of the buffer would raise the error again when Python exits.
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
        # Python, TensorFlow and the record writer use different types for this error.
        if os.strerror(errno.ENOSPC) not in str(error):
            raise
        _print_line("error", f"the disk is full: {error}")
        return BAD_INPUT
    return 0


def warn(message: str) -> None:
    """Prints one line of warning on standard error."""
    _print_line("warning", message)


class Parser(argparse.ArgumentParser):
    """A parser of a few arguments that reports mistakes as `UserError`."""

    def __init__(self, program: str, description: str) -> None:
        super().__init__(prog=program, description=description, allow_abbrev=False)

    def add_path(self, name: str, help: str, *, required: bool = False) -> None:
        """Adds an argument that is a path, as that of an option."""

        def path(text: str) -> str:
            return str(_PATH.normalized(_PATH.parse(text)))

        self.add_argument(name, type=path, help=help, required=required)

    def error(self, message: str) -> NoReturn:
        """Raises `UserError`, where argparse prints its usage and exits."""
        raise UserError(f"{message}; --help lists the arguments")


def _open_streams() -> None:
    """Lets closed standard streams lead nowhere, and shows characters that they cannot encode as escapes."""
    for number in range(3):
        try:
            os.fstat(number)
        except OSError:  # Otherwise the next file to be opened would be taken for the stream.
            os.open(os.devnull, os.O_RDWR)
    for name in ("stdout", "stderr"):
        if getattr(sys, name) is None:
            setattr(sys, name, open(os.devnull, "w", encoding="utf-8"))  # noqa: SIM115
        elif isinstance(getattr(sys, name), io.TextIOWrapper):
            getattr(sys, name).reconfigure(errors="backslashreplace")


def _check_working_directory() -> None:
    try:
        os.getcwd()
    except OSError as error:
        raise UserError(f"the working directory cannot be used: {error.strerror}") from None


@contextlib.contextmanager
def _termination_as_interrupt() -> Iterator[None]:
    """Context in which SIGTERM raises `KeyboardInterrupt`, as Ctrl-C does."""

    def interrupt(number: int, frame: FrameType | None) -> NoReturn:
        raise KeyboardInterrupt(signal.Signals(number).name)

    if threading.current_thread() is not threading.main_thread():  # Only the main one may set handlers.
        yield
        return

    def again(unraisable: sys.UnraisableHookArgs) -> None:
        """Repeats a signal that came in a destructor, where Python ignores exceptions."""
        if issubclass(unraisable.exc_type, KeyboardInterrupt):
            threading.Timer(0.1, os.kill, (os.getpid(), signal.SIGTERM)).start()
        else:
            hook(unraisable)

    hook, sys.unraisablehook = sys.unraisablehook, again
    previous = signal.signal(signal.SIGTERM, interrupt)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, previous)
        sys.unraisablehook = hook


def _print_line(kind: str, message: object) -> None:
    print(f"{kind}: {' '.join(str(message).split())}", file=sys.stderr, flush=True)
