"""What a command reports in one line instead of a traceback: mistakes in its input, and interruption."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator


class UserError(ValueError):
    """Something that the user can mend: its message names it, what was found, and what was expected."""


class ConfigError(UserError):
    """A flag, or a combination of flags, that cannot be used."""


class Interrupted(Exception):
    """Training was interrupted (Ctrl-C) after its state was saved."""


@contextlib.contextmanager
def as_user_errors() -> Iterator[None]:
    """Turns the `ValueError` and `OSError` of reading a user's files into `UserError`.

    Only for blocks that handle input, such as preparing a data set: elsewhere such an error is a defect and
    deserves its traceback.
    """
    try:
        yield
    except UserError:
        raise
    except (ValueError, OSError) as error:
        raise UserError(str(error)) from error
