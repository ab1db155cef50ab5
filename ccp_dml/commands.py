"""What the commands have in common: quiet TensorFlow, errors in one line, exit codes."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable
from typing import NoReturn

from ccp_dml import environment
from ccp_dml.errors import Interrupted, UserError

BAD_INPUT = 2
INTERRUPTED = 130


def run(action: Callable[[], object]) -> int:
    """Runs `action` and returns the exit code of the command.

    Bad input gives one line on standard error and code 2, an interruption one line and code 130. Any other
    exception is a defect and keeps its traceback.
    """
    environment.quiet()
    try:
        action()
    except UserError as error:
        _print_line("error", error)
        return BAD_INPUT
    except Interrupted as interruption:
        _print_line("interrupted", interruption)
        return INTERRUPTED
    except KeyboardInterrupt:
        _print_line("interrupted", "stopped by Ctrl-C")
        return INTERRUPTED
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


def _print_line(kind: str, message: object) -> None:
    print(f"{kind}: {' '.join(str(message).split())}", file=sys.stderr, flush=True)
