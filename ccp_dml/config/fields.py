"""A dataclass field that is also a flag: the one place where its default, range and help stand."""

from __future__ import annotations

import dataclasses
import enum
from typing import Any

from ccp_dml.config.values import Kind

_KEY = "ccp_dml_flag"


class Change(enum.Enum):
    """Whether an unfinished run may go on with another value of a flag."""

    NEVER = "the result would be another"
    FREE = "the result is the same, but for rounding"
    LARGER = "a larger value only makes the run longer"

    def allows(self, before: Any, now: Any) -> bool:
        """Whether a run that began with one value may go on with the other."""
        if before == now or self is Change.FREE:
            return True
        return self is Change.LARGER and now > before


@dataclasses.dataclass(frozen=True)
class Flag:
    """What the command line needs to know of a field.

    Attributes:
        name: the flag's and the field's name.
        kind: the kind of its values.
        default: its default; None where a default follows from other flags, or is the loss's own.
        help: one or two lines for `--help`.
        change: whether an unfinished run may go on with another value.
    """

    name: str
    kind: Kind
    default: Any
    help: str
    change: Change = Change.NEVER

    @property
    def optional(self) -> bool:
        """Whether the flag may be left without a value: None, and empty text on the command line."""
        return self.default is None

    def parse(self, text: str) -> Any:
        """The value that `text` writes; raises `ValueError` saying what is expected."""
        return None if self.optional and not text.strip() else self.kind.parse(text)

    def check(self, value: Any) -> None:
        """Raises `ValueError` unless `value` is valid."""
        if not (value is None and self.optional):
            self.kind.check(value)

    def written(self, value: Any) -> str:
        """The flag as a user would write it; a value of the wrong type as Python shows it."""
        try:
            return f"--{self.name}={self.format(value)}"
        except (TypeError, ValueError):
            return f"--{self.name}={value!r}"

    def format(self, value: Any) -> str:
        """The text that `parse` reads as `value`."""
        return "" if value is None else self.kind.format(value)


def flag(default: Any, kind: Kind, help: str, change: Change = Change.NEVER) -> Any:
    """A dataclass field that becomes a flag of the same name."""
    return dataclasses.field(default=default, metadata={_KEY: (kind, help, change)})


def flags_of(section: Any) -> tuple[Flag, ...]:
    """The flags of a section (a dataclass or an instance of one) in the order of its fields."""
    return tuple(
        Flag(field.name, kind, field.default, help, change)
        for field in dataclasses.fields(section)
        for kind, help, change in [field.metadata[_KEY]]
    )
