"""Flagfiles that include one another relative to the including file."""

from __future__ import annotations

import dataclasses
import functools
import itertools
import os
from collections.abc import Iterator, Mapping, Sequence

from ccp_dml.config.experiment_config import ExperimentConfig
from ccp_dml.config.fields import flags_of
from ccp_dml.errors import ConfigError

_NAMES = ("--flagfile", "-flagfile")
# In a path each stands, in braces, for the run's value of that flag.
_PLACEHOLDERS = ("dataset", "backbone")


@dataclasses.dataclass(frozen=True)
class Argument:
    """An argument and where it was written: file and line, from 1; no file stands for the command line."""

    text: str
    file: str = ""
    line: int = 0

    @property
    def origin(self) -> str:
        """Such as "FILE, line N"; nothing for the command line."""
        return f"{self.file}, line {self.line}" if self.file else ""


def expand(arguments: Sequence[str]) -> list[Argument]:
    """Replaces each `--flagfile=FILE` by the arguments in FILE, and so on for the flagfiles in it.

    A flagfile has one flag per line; empty lines and lines that start with # or // are comments. A path is
    relative to the working directory on the command line, and to the including file in a flagfile. As always,
    the last of several values of a flag counts. `{dataset}` and `{backbone}` in a path are the values of
    `--dataset` and `--backbone`, wherever these stand, except in a file that such a path itself includes.

    Raises:
        ConfigError: a file cannot be read or includes itself; the message names the includer.
    """
    written = [Argument(text) for text in arguments]
    known = list(_expanded(written, folder="", includers=(), values=None))
    values = {name: _last_value(name, known) for name in _PLACEHOLDERS}
    return list(_expanded(written, folder="", includers=(), values=values))


def included(arguments: Sequence[str]) -> list[str]:
    """The files that the arguments themselves include, without those included by these files."""
    given = iter([Argument(text) for text in arguments])
    return [path for argument in given if (path := _path(argument, given)) is not None]


def last_given(arguments: Sequence[Argument]) -> dict[str, int]:
    """For each flag that expanded arguments give, the place among them of its last value, which counts."""
    return {name: place for place, argument in enumerate(arguments) if (name := flag_name(argument))}


def flag_name(argument: Argument) -> str | None:
    """The flag that an argument gives; None if it gives none, as the value behind `--flag` does."""
    name = argument.text.lstrip("-").partition("=")[0]
    for candidate in (name, name.removeprefix("no")):
        if argument.text.startswith("-") and candidate in _flag_names():
            return candidate
    return None


def to_flagfile(config: ExperimentConfig) -> str:
    """A flagfile that gives back `config`.

    Flags without a value are left out, and those of CCP where it is not used.
    """
    lines = []
    for group, section in config.groups():
        if group == "projection" and not config.uses_projections:
            continue
        lines.append(f"# {type(section).__doc__}")
        for flag in flags_of(section):
            value = getattr(section, flag.name)
            if value is not None:
                lines.append(f"--{flag.name}={flag.format(value)}")
        lines.append("")
    return "\n".join(lines)


@functools.cache
def _flag_names() -> frozenset[str]:
    return frozenset(flag.name for flag, _ in ExperimentConfig().items())


def _expanded(
    arguments: Sequence[Argument], folder: str, includers: tuple[str, ...], values: Mapping[str, str] | None
) -> Iterator[Argument]:
    """See `expand`; without values of the placeholders the files whose paths have some are left out."""
    remaining = iter(arguments)
    for argument in remaining:
        path = _path(argument, remaining)
        if path is None:
            yield argument
            continue
        if values is not None or not any(f"{{{name}}}" in path for name in _PLACEHOLDERS):
            filled = _filled(os.path.expanduser(path), values or {})
            file = os.path.normpath(os.path.join(folder, filled))
            content, inside = _read(file, argument, includers), (*includers, os.path.realpath(file))
            yield from _expanded(content, os.path.dirname(file), inside, values)


def _filled(path: str, values: Mapping[str, str]) -> str:
    """The path with these values of placeholders."""
    for name, value in values.items():
        path = path.replace(f"{{{name}}}", value)
    return path


def _last_value(name: str, arguments: Sequence[Argument]) -> str:
    """The value that the arguments give the flag last, else its default."""
    found = str(next(value for flag, value in ExperimentConfig().items() if flag.name == name))
    for argument, following in itertools.pairwise([*arguments, Argument("")]):
        written, equals, value = argument.text.partition("=")
        if written in (f"--{name}", f"-{name}"):
            found = value if equals else following.text
    return found.strip()


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
