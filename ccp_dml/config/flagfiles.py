"""Flagfiles: files of flags that may include one another; reading and writing."""

from __future__ import annotations

import dataclasses
import itertools
import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import ccp_dml
from ccp_dml.config.experiment_config import ExperimentConfig
from ccp_dml.errors import ConfigError
from ccp_dml.options import Option, options_of

_NAMES = ("--flagfile", "-flagfile")
_MOST_FILES = 100
_MOST_CHARACTERS = 1_000_000


@dataclasses.dataclass(frozen=True)
class Argument:
    """An argument and its origin: file and line, from 1; no file stands for the command line."""

    text: str
    file: str = ""
    line: int = 0

    @property
    def origin(self) -> str:
        """The text "FILE, line N" or "command line"."""
        return f"{self.file}, line {self.line}" if self.file else "command line"

    @property
    def prefix(self) -> str:
        """The beginning of a message on the argument: its origin, if that is a file."""
        return f"{self.origin}: " if self.file else ""


def expand(arguments: Sequence[str]) -> list[Argument]:
    """Replaces each `--flagfile=FILE` by the arguments in FILE, and likewise for the flagfiles in it.

    A flagfile has one flag per line; empty lines and lines that start with # or // are comments. A path is
    relative to the working directory on the command line, and to the including file in a flagfile.

    Raises:
        ConfigError: if a file cannot be read or includes itself, or there are more than 100; the message
            names the including file.
    """
    return list(_expanded([Argument(text) for text in arguments], "", (), itertools.count(1)))


def included(arguments: Sequence[str]) -> list[str]:
    """The flagfiles that the arguments name, without those that are named in these files."""
    given = iter([Argument(text) for text in arguments])
    return [path for argument in given if (path := _path(argument, given)) is not None]


def to_flagfile(config: ExperimentConfig) -> str:
    """Writes a flagfile that gives the same configuration."""
    blocks = []
    for heading, values in groups_with_values(config):
        lines = [f"--{declared.name}={declared.format(value)}" for declared, value in values]
        blocks.append("\n".join([f"# {heading}", *lines, ""]))
    return "\n".join(blocks)


def groups_with_values(config: ExperimentConfig) -> Iterator[tuple[str, list[tuple[Option, Any]]]]:
    """Heading and options of each group, with values; without options that have no value.

    The options of CCP are left out if the loss does not use it.
    """
    for group, section in config.groups():
        if group == "projections" and not config.uses_projections:
            continue
        values = [(declared, getattr(section, declared.name)) for declared in options_of(section)]
        found = [(declared, value) for declared, value in values if value is not None]
        if found:
            yield str(type(section).__doc__), found


def _expanded(
    arguments: Sequence[Argument], folder: str, includers: tuple[str, ...], numbers: Iterator[int]
) -> Iterator[Argument]:
    """Yields the arguments; `numbers` counts the flagfiles."""
    remaining = iter(arguments)
    for argument in remaining:
        path = _path(argument, remaining)
        if path is None:
            yield argument
            continue
        file = _located(os.path.normpath(os.path.join(folder, os.path.expanduser(path))))
        if next(numbers) > _MOST_FILES:
            raise ConfigError(f"{argument.prefix}--flagfile={file}: expected at most {_MOST_FILES} flagfiles")
        content, inside = _read(file, argument, includers), (*includers, os.path.realpath(file))
        yield from _expanded(content, os.path.dirname(file), inside, numbers)


def _located(file: str) -> str:
    """The file; without it, the flagfile of the library of that path, such as configs/cub.cfg."""
    if os.path.exists(file) or not file.startswith("configs/"):
        return file
    # An installed copy has them inside the package, a checkout beside it.
    package = Path(ccp_dml.__file__).parent
    shipped = [str(folder / file) for folder in (package, package.parent)]
    return next(filter(os.path.exists, shipped), file)


def _path(argument: Argument, following: Iterator[Argument]) -> str | None:
    """The path in `--flagfile=PATH` or `--flagfile PATH`; None for any other argument."""
    name, equals, path = argument.text.partition("=")
    if name not in _NAMES:
        return None
    if not equals:
        path = next(following, Argument("")).text
    if not path.strip() or "\0" in path:
        raise ConfigError(f"{argument.prefix}--flagfile: expected a file name")
    return path.strip()


def _read(file: str, includer: Argument, includers: tuple[str, ...]) -> list[Argument]:
    if os.path.realpath(file) in includers:
        raise ConfigError(f"{includer.prefix}--flagfile={file}: the file includes itself; remove the line")
    try:
        with open(file, encoding="utf-8") as stream:
            text = stream.read(_MOST_CHARACTERS + 1)
        if len(text) > _MOST_CHARACTERS or "\0" in text:
            raise ValueError(text)
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) else "not a text file of flags"
        raise ConfigError(f"{includer.prefix}--flagfile={file}: cannot be read: {reason}") from None
    numbered = ((number, line.strip()) for number, line in enumerate(text.splitlines(), start=1))
    return [
        Argument(line, file, number) for number, line in numbered if line and not line.startswith(("#", "//"))
    ]
