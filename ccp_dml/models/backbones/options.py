"""Options of a backbone as text, `name=value` separated by commas; imports no TensorFlow."""

from __future__ import annotations

from dataclasses import fields
from typing import Any

_BOOLEANS = {"true": True, "false": False}


def parse_options(text: str, kind: type[Any]) -> Any:
    """The options that a text writes.

    Args:
        text: `name=value,name=value`; may be empty.
        kind: a dataclass whose fields are integers, booleans or texts and have defaults.

    Returns:
        An instance of it.

    Raises:
        ValueError: if a name is unknown or given twice, or a value is not valid.
    """
    defaults = {field.name: field.default for field in fields(kind)}
    values: dict[str, Any] = {}
    for part in filter(None, (part.strip() for part in text.split(","))):
        name, equals, value = part.partition("=")
        if not equals or name not in defaults:
            raise ValueError(f"{part!r} is no option; expected name=value with one of {', '.join(defaults)}")
        if name in values:
            raise ValueError(f"{name} is given twice")
        values[name] = _value(name, value, defaults[name])
    return kind(**values)


def _value(name: str, text: str, default: Any) -> Any:
    if isinstance(default, bool):
        if text.lower() not in _BOOLEANS:
            raise ValueError(f"{name} is {text!r}; expected true or false")
        return _BOOLEANS[text.lower()]
    if isinstance(default, int):
        try:
            return int(text)
        except ValueError:
            raise ValueError(f"{name} is {text!r}; expected an integer") from None
    return text
