"""Exceptions that a command reports in one line, without a traceback: mistakes in its input, interruption."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator


class UserError(ValueError):
    """A mistake that the user can correct; the message names it, and what was found and expected."""


class ConfigError(UserError):
    """A flag or a combination of flags that cannot be used; the message begins with `--flag=value:`."""


class Interrupted(Exception):
    """The command was interrupted (Ctrl-C, SIGTERM); the message tells how to continue."""


@contextlib.contextmanager
def as_user_errors() -> Iterator[None]:
    """Context that turns `ValueError` and `OSError` into `UserError`.

    Only for code that reads a user's files: elsewhere such an error is a defect and keeps its traceback.
    """
    try:
        yield
    except UserError:
        raise
    except (ValueError, OSError) as error:
        raise UserError(str(error)) from error
