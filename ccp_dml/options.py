"""Options: dataclass fields with a default, a range and a help text.

    @dataclasses.dataclass(frozen=True)
    class OptimizerOptions(Options):
        "The optimizer and its learning rate."

        learning_rate: float = option(1e-4, Number(above=0), "Learning rate.")

An options class is defined beside the code that takes it, in a module without TensorFlow. Values are checked
when an instance is made. `ccp_dml.config` turns every field of these classes into a command-line flag.
"""

from __future__ import annotations

import dataclasses
import enum
import functools
from collections.abc import Mapping
from typing import Any

from ccp_dml.kinds import Kind

_METADATA = "ccp_dml_option"


class OptionError(ValueError):
    """An option has a value out of its range; the message is `name=value: expected ...`."""


class Change(enum.Enum):
    """Permission to continue an unfinished run with another value of an option."""

    NEVER = "the result would differ"
    FREE = "the result is the same, up to rounding"
    LARGER = "a larger value only makes the run longer"

    def allows(self, before: Any, now: Any) -> bool:
        """Returns True if a run that began with the value `before` may continue with `now`."""
        if before == now or self is Change.FREE:
            return True
        return self is Change.LARGER and now > before


# Some values of another option (None: not given), or a kind that its value is of.
Condition = tuple[Any, ...] | Kind


@dataclasses.dataclass(frozen=True)
class Option:
    """The declaration of an option.

    Attributes:
        name: name of the field and of the flag.
        kind: the valid values.
        default: the default; None if it follows from other options, or is that of the loss.
        help: one or two lines for `--help`.
        change: permission to continue an unfinished run with another value.
        only_with: conditions on other options, by their names; this option has no effect unless they hold.
    """

    name: str
    kind: Kind
    default: Any
    help: str
    change: Change = Change.NEVER
    only_with: Mapping[str, Condition] = dataclasses.field(default_factory=dict)

    @property
    def optional(self) -> bool:
        """True if the value may be None, which is empty text on the command line."""
        return self.default is None

    def parse(self, text: str) -> Any:
        """Converts text to a valid value; raises `ValueError` naming the valid values."""
        return None if self.optional and not text.strip() else self.kind.parse(text)

    def check(self, value: Any) -> None:
        """Raises `OptionError` unless `value` is valid."""
        if value is None and self.optional:
            return
        try:
            self.kind.check(value)
        except ValueError as error:
            raise OptionError(f"{self.written(value)}: {error}") from None

    def format(self, value: Any) -> str:
        """Converts a value to text, from which `parse` returns the same value."""
        return "" if value is None else self.kind.format(value)

    def written(self, value: Any) -> str:
        """Returns `name=value` as on the command line; a value of a wrong type as Python shows it."""
        try:
            return f"{self.name}={self.format(value)}"
        except (TypeError, ValueError):
            return f"{self.name}={value!r}"


class Options:
    """Base of all options classes, which are frozen dataclasses; checks each value when one is made."""

    def __post_init__(self) -> None:
        for declared in options_of(self):
            value = getattr(self, declared.name)
            declared.check(value)
            if value is not None:
                object.__setattr__(self, declared.name, declared.kind.normalized(value))


def option(
    default: Any,
    kind: Kind,
    help: str,
    change: Change = Change.NEVER,
    only_with: Mapping[str, Condition] | None = None,
) -> Any:
    """Declares a field of an options class; see `Option` for the arguments."""
    metadata = {_METADATA: (kind, default, help, change, dict(only_with or {}))}
    return dataclasses.field(default=default, metadata=metadata)


def options_of(section: Any) -> tuple[Option, ...]:
    """The options of an options class, or of an instance, in the order of the fields."""
    return _declared(section if isinstance(section, type) else type(section))


@functools.cache
def _declared(options_class: Any) -> tuple[Option, ...]:
    fields = dataclasses.fields(options_class)
    return tuple(Option(field.name, *field.metadata[_METADATA]) for field in fields)
