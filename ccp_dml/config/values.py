"""Kinds of flag values: text to value, value to text, and the check of either way in, flags or Python."""

from __future__ import annotations

import abc
import dataclasses
import itertools
import math
import re
from typing import Any

_TRUE = ("true", "t", "1", "yes")
_FALSE = ("false", "f", "0", "no")
# What TensorFlow's int32 and float32 hold.
LARGEST_INTEGER = 2**31 - 1
LARGEST_NUMBER = 3.4e38


@dataclasses.dataclass(frozen=True)
class Kind(abc.ABC):
    """A kind of value. `parse` and `check` raise `ValueError` with a message that says what is expected."""

    @property
    def expected(self) -> str:
        """What a valid value is, in words that can follow "expected"."""
        return self._in_words()

    @abc.abstractmethod
    def _in_words(self) -> str:
        """See `expected`."""

    @abc.abstractmethod
    def _convert(self, text: str) -> Any:
        """The value that `text` writes; raises `ValueError` or `OverflowError` where it writes none."""

    @abc.abstractmethod
    def _holds(self, value: Any) -> bool:
        """Whether `value` is of this kind and in range."""

    def format(self, value: Any) -> str:
        """The text from which `parse` returns `value`."""
        return str(value)

    def parse(self, text: str) -> Any:
        """The valid value that `text` writes."""
        try:
            value = self._convert(text.strip())
        except (ValueError, OverflowError):
            raise ValueError(f"expected {self.expected}") from None
        self.check(value)
        return value

    def check(self, value: Any) -> None:
        """Raises `ValueError` unless `value` is valid."""
        if not self._holds(value):
            raise ValueError(f"expected {self.expected}")


@dataclasses.dataclass(frozen=True)
class Text(Kind):
    """Text that is not empty, without blanks around it, and fits on a line."""

    what: str = "a text"

    def _in_words(self) -> str:
        return self.what

    def _convert(self, text: str) -> str:
        return text

    def _holds(self, value: Any) -> bool:
        return isinstance(value, str) and value == value.strip() and len(value.splitlines()) == 1


@dataclasses.dataclass(frozen=True)
class Choice(Kind):
    """One of a few names."""

    names: tuple[str, ...]

    def _in_words(self) -> str:
        return "one of " + ", ".join(self.names)

    def _convert(self, text: str) -> str:
        return text

    def _holds(self, value: Any) -> bool:
        return value in self.names


@dataclasses.dataclass(frozen=True)
class Switch(Kind):
    """True or false: `--name` and `--noname` on the command line."""

    def _in_words(self) -> str:
        return "true or false"

    def _convert(self, text: str) -> bool:
        word = text.lower()
        if word not in _TRUE + _FALSE:
            raise ValueError
        return word in _TRUE

    def _holds(self, value: Any) -> bool:
        return isinstance(value, bool)

    def format(self, value: Any) -> str:
        """As on the command line: true or false."""
        return "true" if value else "false"


@dataclasses.dataclass(frozen=True)
class SwitchedChoice(Choice):
    """One of a few names, or a bare `--name` for `on` and `--noname` for `off`."""

    on: str
    off: str

    def _convert(self, text: str) -> str:
        return {"true": self.on, "false": self.off}.get(text.lower(), text)


@dataclasses.dataclass(frozen=True)
class Integer(Kind):
    """An integer in the closed range [low, high]."""

    low: int
    high: int = LARGEST_INTEGER

    def _in_words(self) -> str:
        return f"an integer, {_range_in_words(self.low, self.high)}"

    def _convert(self, text: str) -> int:
        return int(text)

    def _holds(self, value: Any) -> bool:
        is_integer = isinstance(value, int) and not isinstance(value, bool)
        return is_integer and self.low <= value <= self.high


@dataclasses.dataclass(frozen=True)
class IntegerOr(Kind):
    """An integer in the closed range [low, `LARGEST_INTEGER`], or a word."""

    low: int
    word: str

    def _in_words(self) -> str:
        return f"an integer, at least {self.low}, or {self.word}"

    def _convert(self, text: str) -> int | str:
        return text if text == self.word else int(text)

    def _holds(self, value: Any) -> bool:
        return value == self.word or Integer(self.low)._holds(value)


@dataclasses.dataclass(frozen=True)
class Number(Kind):
    """A real number: at least `low` (or above `above`), at most `high` (or below `below`).

    Without such a bound it is within ±`LARGEST_NUMBER`.
    """

    low: float | None = None
    high: float | None = None
    above: float | None = None
    below: float | None = None

    def _in_words(self) -> str:
        low = -LARGEST_NUMBER if self.low is None and self.above is None else self.low
        high = LARGEST_NUMBER if self.high is None and self.below is None else self.high
        return f"a number, {_range_in_words(low, high, self.above, self.below)}"

    def _convert(self, text: str) -> float:
        return float(text)

    def _holds(self, value: Any) -> bool:
        if isinstance(value, bool) or not isinstance(value, (int, float)) or not math.isfinite(value):
            return False
        if abs(value) > LARGEST_NUMBER:
            return False
        return (
            (self.low is None or value >= self.low)
            and (self.high is None or value <= self.high)
            and (self.above is None or value > self.above)
            and (self.below is None or value < self.below)
        )

    def format(self, value: Any) -> str:
        """The shortest text that gives back the value exactly."""
        return repr(float(value)).removesuffix(".0")


@dataclasses.dataclass(frozen=True)
class Integers(Kind):
    """A tuple of increasing positive integers, separated by commas in text; empty text is the empty tuple."""

    def _in_words(self) -> str:
        return "increasing positive integers separated by commas, such as 1,2,4"

    def _convert(self, text: str) -> tuple[int, ...]:
        return tuple(int(part) for part in text.split(",")) if text else ()

    def _holds(self, value: Any) -> bool:
        if not isinstance(value, tuple) or not all(Integer(1)._holds(item) for item in value):
            return False
        return all(first < second for first, second in itertools.pairwise(value))

    def format(self, value: Any) -> str:
        """The integers separated by commas."""
        return ",".join(str(item) for item in value)


@dataclasses.dataclass(frozen=True)
class Steps(Kind):
    """A range of steps: a pair of integers from 0, the first one smaller; START:STOP in text."""

    def _in_words(self) -> str:
        return "START:STOP, two numbers of steps of which the first is smaller, such as 100:120"

    def _convert(self, text: str) -> tuple[int, ...]:
        return tuple(int(part) for part in text.split(":"))

    def _holds(self, value: Any) -> bool:
        if not isinstance(value, tuple) or len(value) != 2 or any(type(item) is not int for item in value):
            return False
        return 0 <= value[0] < value[1]

    def format(self, value: Any) -> str:
        """The steps with a colon between them."""
        return ":".join(str(item) for item in value)


@dataclasses.dataclass(frozen=True)
class Patterns(Kind):
    """A tuple of regular expressions, separated by blanks in text; empty text is the empty tuple."""

    def _in_words(self) -> str:
        return "regular expressions separated by blanks"

    def _convert(self, text: str) -> tuple[str, ...]:
        return tuple(text.split())

    def _holds(self, value: Any) -> bool:
        return isinstance(value, tuple) and all(self._is_pattern(item) for item in value)

    @staticmethod
    def _is_pattern(item: Any) -> bool:
        try:
            return isinstance(item, str) and bool(item) and item.split() == [item] and bool(re.compile(item))
        except re.error:
            return False

    def format(self, value: Any) -> str:
        """The expressions separated by blanks."""
        return " ".join(value)


def _range_in_words(
    low: float | None,
    high: float | None,
    above: float | None = None,
    below: float | None = None,
) -> str:
    bounds = (("at least", low), ("above", above), ("at most", high), ("below", below))
    return " and ".join(f"{words} {bound}" for words, bound in bounds if bound is not None)
