"""Flagfiles that include one another relative to the including file."""

from __future__ import annotations

import dataclasses
import functools
import os
from collections.abc import Iterator, Sequence

from ccp_dml.config.experiment_config import ExperimentConfig
from ccp_dml.errors import ConfigError
from ccp_dml.options import options_of

_NAMES = ("--flagfile", "-flagfile")


@dataclasses.dataclass(frozen=True)
class Argument:
    """An argument and where it was written: file and line, from 1; no file stands for the command line."""

    text: str
    file: str = ""
    line: int = 0

    @property
    def origin(self) -> str:
        """Such as "FILE, line N"; empty for the command line."""
        return f"{self.file}, line {self.line}" if self.file else ""

    @property
    def flag(self) -> str | None:
        """Name of the flag that the argument sets; None if it sets none, as the value behind `--flag`."""
        name = self.text.lstrip("-").partition("=")[0]
        for candidate in (name, name.removeprefix("no")):
            if self.text.startswith("-") and candidate in _flag_names():
                return candidate
        return None


def expand(arguments: Sequence[str]) -> list[Argument]:
    """Replaces each `--flagfile=FILE` by the arguments in FILE, and so on for the flagfiles in it.

    A flagfile has one flag per line; empty lines and lines that start with # or // are comments. A path is
    relative to the working directory on the command line, and to the including file in a flagfile. As always,
    the last of several values of a flag counts.

    Raises:
        ConfigError: if a file cannot be read or includes itself; the message names the includer.
    """
    return list(_expanded([Argument(text) for text in arguments], folder="", includers=()))


def included(arguments: Sequence[str]) -> list[str]:
    """The files that the arguments themselves include, without those included by these files."""
    given = iter([Argument(text) for text in arguments])
    return [path for argument in given if (path := _path(argument, given)) is not None]


def last_given(arguments: Sequence[Argument]) -> dict[str, Argument]:
    """For each flag that expanded arguments set, the last one that does, which counts."""
    return {argument.flag: argument for argument in arguments if argument.flag is not None}


def to_flagfile(config: ExperimentConfig) -> str:
    """A flagfile that gives back `config`.

    Flags without a value are left out, and those of CCP where it is not used.
    """
    lines = []
    for group, section in config.groups():
        if group == "projections" and not config.uses_projections:
            continue
        lines.append(f"# {type(section).__doc__}")
        for declared in options_of(section):
            value = getattr(section, declared.name)
            if value is not None:
                lines.append(f"--{declared.name}={declared.format(value)}")
        lines.append("")
    return "\n".join(lines)


@functools.cache
def _flag_names() -> frozenset[str]:
    return frozenset(declared.name for declared, _ in ExperimentConfig().items())


def _expanded(arguments: Sequence[Argument], folder: str, includers: tuple[str, ...]) -> Iterator[Argument]:
    remaining = iter(arguments)
    for argument in remaining:
        path = _path(argument, remaining)
        if path is None:
            yield argument
            continue
        file = os.path.normpath(os.path.join(folder, os.path.expanduser(path)))
        content, inside = _read(file, argument, includers), (*includers, os.path.realpath(file))
        yield from _expanded(content, os.path.dirname(file), inside)


def _path(argument: Argument, following: Iterator[Argument]) -> str | None:
    """The path in `--flagfile=PATH` or `--flagfile PATH`; None for any other argument."""
    name, equals, path = argument.text.partition("=")
    if name not in _NAMES:
        return None
    if not equals:
        path = next(following, Argument("")).text
    if not path.strip():
        raise ConfigError(f"{_place(argument)}--flagfile: expected a file name")
    return path.strip()


def _read(file: str, includer: Argument, includers: tuple[str, ...]) -> list[Argument]:
    if os.path.realpath(file) in includers:
        raise ConfigError(f"{_place(includer)}--flagfile={file}: the file includes itself")
    try:
        with open(file, encoding="utf-8") as stream:
            lines = stream.read().splitlines()
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "not a text file"
        raise ConfigError(f"{_place(includer)}--flagfile={file}: cannot be read: {reason}") from None
    numbered = ((number, line.strip()) for number, line in enumerate(lines, start=1))
    return [
        Argument(line, file, number) for number, line in numbered if line and not line.startswith(("#", "//"))
    ]


def _place(argument: Argument) -> str:
    return f"{argument.origin}: " if argument.origin else ""
