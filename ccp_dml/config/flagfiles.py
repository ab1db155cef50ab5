"""Flagfiles that include one another relative to the including file."""

from __future__ import annotations

import dataclasses
import itertools
import os
from collections.abc import Iterator, Sequence

from ccp_dml.config.experiment_config import ExperimentConfig
from ccp_dml.config.fields import flags_of
from ccp_dml.errors import ConfigError

_NAMES = ("--flagfile", "-flagfile")
_DATASET_NAMES = ("--dataset", "-dataset")
# In a path it stands for the name of the run's data set.
_PLACEHOLDER = "{dataset}"


@dataclasses.dataclass(frozen=True)
class Argument:
    """An argument and where it was written: "FILE, line N", or nothing for the command line."""

    text: str
    origin: str = ""


def expand(arguments: Sequence[str]) -> list[Argument]:
    """Replaces each `--flagfile=FILE` by the arguments in FILE, and so on for the flagfiles in it.

    A flagfile has one flag per line; empty lines and lines that start with # or // are comments. A path is
    relative to the working directory on the command line, and to the including file in a flagfile. As always,
    the last of several values of a flag counts. `{dataset}` in a path is the value of `--dataset`, wherever
    that stands, except in a file that is itself included by such a path.

    Raises:
        ConfigError: a file cannot be read or includes itself; the message names the includer.
    """
    written = [Argument(text) for text in arguments]
    dataset = _dataset(list(_expanded(written, folder="", includers=(), dataset=None)))
    return list(_expanded(written, folder="", includers=(), dataset=dataset))


def included(arguments: Sequence[str]) -> list[str]:
    """The files that the arguments themselves include, without those included by these files."""
    given = iter([Argument(text) for text in arguments])
    return [path for argument in given if (path := _path(argument, given)) is not None]


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


def _expanded(
    arguments: Sequence[Argument], folder: str, includers: tuple[str, ...], dataset: str | None
) -> Iterator[Argument]:
    """See `expand`; without a data set the files whose paths need one are left out."""
    remaining = iter(arguments)
    for argument in remaining:
        path = _path(argument, remaining)
        if path is None:
            yield argument
        elif dataset is not None or _PLACEHOLDER not in path:
            path = os.path.expanduser(path).replace(_PLACEHOLDER, dataset or "")
            file = os.path.normpath(os.path.join(folder, path))
            content, inside = _read(file, argument, includers), (*includers, os.path.realpath(file))
            yield from _expanded(content, os.path.dirname(file), inside, dataset)


def _dataset(arguments: Sequence[Argument]) -> str:
    """The data set that the arguments name last, else the default one."""
    found = ExperimentConfig().data.dataset
    for argument, following in itertools.pairwise([*arguments, Argument("")]):
        name, equals, value = argument.text.partition("=")
        if name in _DATASET_NAMES:
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
        Argument(line, origin=f"{file}, line {number}")
        for number, line in numbered
        if line and not line.startswith(("#", "//"))
    ]


def _place(argument: Argument) -> str:
    return f"{argument.origin}: " if argument.origin else ""
