"""The kinds of values that options have: their ranges, and their form as text."""

from __future__ import annotations

import abc
import dataclasses
import itertools
import math
import os
import re
from typing import Any

# The range of TensorFlow's int32 and float32.
LARGEST_INTEGER = 2**31 - 1
LARGEST_NUMBER = 3.4e38

_TRUE = ("true", "t", "1", "yes")
_FALSE = ("false", "f", "0", "no")


class Kind(abc.ABC):
    """The valid values of an option, and their form as text."""

    @property
    @abc.abstractmethod
    def expected(self) -> str:
        """A noun phrase for the valid values, such as "an integer, at least 1"."""

    @property
    def is_switch(self) -> bool:
        """True if `--name` and `--noname` are flags without a value."""
        return False

    @abc.abstractmethod
    def holds(self, value: Any) -> bool:
        """Returns True if a value is of this kind and in range."""

    def convert(self, text: str) -> Any:
        """Converts text to a value; raises `ValueError` or `OverflowError` if that is not possible."""
        return text

    def format(self, value: Any) -> str:
        """Converts a value to text, from which `parse` returns the same value."""
        return str(value)

    def normalized(self, value: Any) -> Any:
        """Returns the form in which a valid value is kept."""
        return value

    def parse(self, text: str) -> Any:
        """Converts text to a valid value; raises `ValueError` naming the valid values."""
        try:
            value = self.convert(text.strip())
        except (ValueError, OverflowError):
            raise ValueError(f"expected {self.expected}") from None
        self.check(value)
        return value

    def check(self, value: Any) -> None:
        """Raises `ValueError` unless `value` is valid."""
        if not self.holds(value):
            raise ValueError(f"expected {self.expected}")


@dataclasses.dataclass(frozen=True)
class Text(Kind):
    """A non-empty line of text without surrounding blanks; `expected` describes its meaning."""

    expected: str = "text"

    def holds(self, value: Any) -> bool:
        """Returns True if a value is such a text, which UTF-8 can encode."""
        if not isinstance(value, str) or value != value.strip() or len(value.splitlines()) != 1:
            return False
        # Python reads other bytes of the command line as lone surrogates.
        return "\0" not in value and not any("\ud800" <= character <= "\udfff" for character in value)


@dataclasses.dataclass(frozen=True)
class PathText(Text):
    """A path; a leading `~` or `~user` stands for a home folder, which has to be known."""

    def holds(self, value: Any) -> bool:
        """Returns True if a value is such a path."""
        return super().holds(value) and not self.normalized(value).startswith("~")

    def normalized(self, value: Any) -> Any:
        """Returns the path with its home folder."""
        return os.path.expanduser(value)


@dataclasses.dataclass(frozen=True)
class Choice(Kind):
    """One of several names; if `on` and `off` are given, `--name` and `--noname` stand for them."""

    names: tuple[str, ...]
    on: str | None = None
    off: str | None = None

    @property
    def expected(self) -> str:
        """The names."""
        return "one of " + ", ".join(self.names)

    @property
    def is_switch(self) -> bool:
        """True if `on` and `off` are given."""
        return self.on is not None

    def holds(self, value: Any) -> bool:
        """Returns True if a value is one of the names."""
        return value in self.names

    def convert(self, text: str) -> str:
        """Returns the text, or the name that `true` or `false` stands for."""
        switched = {"true": self.on, "false": self.off}.get(text.lower())
        return text if switched is None else switched


@dataclasses.dataclass(frozen=True)
class Switch(Kind):
    """True or false: `--name` and `--noname` on the command line."""

    expected: str = "true or false"
    is_switch = True

    def holds(self, value: Any) -> bool:
        """Returns True if a value is a `bool`."""
        return isinstance(value, bool)

    def convert(self, text: str) -> bool:
        """Converts one of the usual spellings of true and false."""
        if text.lower() not in _TRUE + _FALSE:
            raise ValueError(text)
        return text.lower() in _TRUE

    def format(self, value: Any) -> str:
        """Returns `true` or `false`."""
        return "true" if value else "false"


@dataclasses.dataclass(frozen=True)
class Integer(Kind):
    """An integer in [low, high], or the word `word` if it is given."""

    low: int
    high: int = LARGEST_INTEGER
    word: str | None = None

    @property
    def expected(self) -> str:
        """The range and the word."""
        alternative = "" if self.word is None else f", or {self.word}"
        return f"an integer, {_range(low=self.low, high=self.high)}{alternative}"

    def holds(self, value: Any) -> bool:
        """Returns True if a value is an integer in range, or the word."""
        if isinstance(value, str):
            return value == self.word
        return isinstance(value, int) and not isinstance(value, bool) and self.low <= value <= self.high

    def convert(self, text: str) -> int | str:
        """Converts to an integer, unless the text is the word."""
        return text if text == self.word else int(text)


# Height and width of images in pixels; one number for both if they are equal.
ImageSize = int | tuple[int, int]


def height_and_width(size: ImageSize) -> tuple[int, int]:
    """Returns both numbers of a size."""
    return (size, size) if isinstance(size, int) else size


def format_size(size: ImageSize) -> str:
    """Converts a size to text, such as 256x128."""
    return str(size) if isinstance(size, int) else "x".join(map(str, size))


@dataclasses.dataclass(frozen=True)
class Size(Integer):
    """An integer in [low, high], or a pair of them for height and width; in text, HEIGHTxWIDTH."""

    @property
    def expected(self) -> str:
        """The range."""
        return f"{super().expected}, or HEIGHTxWIDTH, such as 256x128"

    def holds(self, value: Any) -> bool:
        """Returns True if a value is an integer or a pair of integers in range."""
        sides = value if isinstance(value, tuple) and len(value) == 2 else (value,)
        return all(super(Size, self).holds(side) for side in sides)

    def convert(self, text: str) -> Any:
        """Splits the text at the x; equal sides become one number."""
        sides = [int(side) for side in text.lower().split("x")]
        if len(sides) > 2:
            raise ValueError(text)
        return sides[0] if sides[0] == sides[-1] else (sides[0], sides[1])

    def format(self, value: Any) -> str:
        """Joins the sides with an x."""
        return format_size(value)


@dataclasses.dataclass(frozen=True)
class Number(Kind):
    """A finite float32: at least `low` or above `above`, at most `high` or below `below`."""

    low: float | None = None
    high: float | None = None
    above: float | None = None
    below: float | None = None

    @property
    def expected(self) -> str:
        """The range."""
        low = -LARGEST_NUMBER if self.low is None and self.above is None else self.low
        high = LARGEST_NUMBER if self.high is None and self.below is None else self.high
        return f"a number, {_range(low=low, above=self.above, high=high, below=self.below)}"

    def holds(self, value: Any) -> bool:
        """Returns True if a value is a number in range."""
        if isinstance(value, bool) or not isinstance(value, (int, float)) or not math.isfinite(value):
            return False
        return (
            abs(value) <= LARGEST_NUMBER
            and (self.low is None or value >= self.low)
            and (self.high is None or value <= self.high)
            and (self.above is None or value > self.above)
            and (self.below is None or value < self.below)
        )

    def convert(self, text: str) -> float:
        """Converts to a number."""
        return float(text)

    def format(self, value: Any) -> str:
        """Returns the shortest text that gives exactly this value."""
        return repr(float(value)).removesuffix(".0")


@dataclasses.dataclass(frozen=True)
class Integers(Kind):
    """A tuple of increasing positive integers, possibly empty; in text, separated by commas."""

    expected: str = "increasing positive integers separated by commas, such as 1,2,4"

    def holds(self, value: Any) -> bool:
        """Returns True if a value is such a tuple."""
        if not isinstance(value, tuple) or not all(Integer(1).holds(item) for item in value):
            return False
        return all(first < second for first, second in itertools.pairwise(value))

    def convert(self, text: str) -> tuple[int, ...]:
        """Splits the text at commas."""
        return tuple(int(item) for item in text.split(",")) if text else ()

    def format(self, value: Any) -> str:
        """Joins the integers with commas."""
        return ",".join(map(str, value))


@dataclasses.dataclass(frozen=True)
class StepRange(Kind):
    """A pair (start, stop) of step numbers with 0 <= start < stop; in text, START:STOP."""

    expected: str = "START:STOP, two step numbers in increasing order, such as 100:120"

    def holds(self, value: Any) -> bool:
        """Returns True if a value is such a pair."""
        if not isinstance(value, tuple) or len(value) != 2 or any(type(item) is not int for item in value):
            return False
        return 0 <= value[0] < value[1]

    def convert(self, text: str) -> tuple[int, ...]:
        """Splits the text at the colon."""
        return tuple(int(item) for item in text.split(":"))

    def format(self, value: Any) -> str:
        """Joins the numbers with a colon."""
        return ":".join(map(str, value))


@dataclasses.dataclass(frozen=True)
class Patterns(Kind):
    """A tuple of regular expressions, possibly empty; in text, separated by blanks."""

    expected: str = "regular expressions separated by blanks"

    def holds(self, value: Any) -> bool:
        """Returns True if a value is a tuple of expressions that compile."""
        try:
            return isinstance(value, tuple) and all(
                isinstance(item, str) and item.split() == [item] and bool(re.compile(item)) for item in value
            )
        except re.error:
            return False

    def convert(self, text: str) -> tuple[str, ...]:
        """Splits the text at blanks."""
        return tuple(text.split())

    def format(self, value: Any) -> str:
        """Joins the expressions with blanks."""
        return " ".join(value)


def _range(**bounds: float | None) -> str:
    words = {"low": "at least", "above": "above", "high": "at most", "below": "below"}
    return " and ".join(f"{words[name]} {bound}" for name, bound in bounds.items() if bound is not None)
