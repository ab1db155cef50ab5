"""The command line of an experiment: absl flags, made from the fields of the configuration."""

from __future__ import annotations

import datetime
import difflib
import itertools
import os
import shutil
import textwrap
from collections.abc import Sequence
from typing import Any

from absl import flags

from ccp_dml.config import explanation, flagfiles, validation
from ccp_dml.config.experiment_config import ExperimentConfig
from ccp_dml.config.fields import Flag, flags_of
from ccp_dml.config.flagfiles import Argument
from ccp_dml.config.superseded_flags import superseded
from ccp_dml.config.values import Switch, SwitchedChoice
from ccp_dml.errors import ConfigError, UserError

_HELP = ("--help", "-help", "-h", "--helpshort", "-helpshort")
_FULL_HELP = ("--helpfull", "-helpfull")
_PRINT_CONFIG = ("--print_config", "-print_config")


def parse(arguments: Sequence[str]) -> ExperimentConfig:
    """The valid and complete configuration that these command-line arguments (without the program) give.

    Raises:
        ConfigError: an argument is wrong; the message is one line that names it and its flagfile.
    """
    config = read(arguments)
    config.validate()
    config = config.resolve()
    if config.run.run_dir is None:
        config = config.replace(run_dir=_default_run_dir(arguments, config))
    return config


def read(arguments: Sequence[str]) -> ExperimentConfig:
    """The configuration as written: each value in its range, none checked against another or filled in.

    Flags of flagfiles that do nothing with what is said on top of them have their defaults.

    Raises:
        ConfigError: an argument is no flag, or its value is not one that the flag takes.
    """
    return _read(flagfiles.expand(arguments))[0]


def _read(expanded: Sequence[Argument]) -> tuple[ExperimentConfig, list[Argument]]:
    """See `read`; also the arguments that count, without those that others supersede."""
    values = flags.FlagValues()
    define_flags(values)
    try:
        rest = values(["train.py", *(argument.text for argument in expanded)])[1:]
    except flags.IllegalFlagValueError as error:
        problem = str(error).removeprefix("flag ")
        written = problem.partition(": expected")[0]
        raise ConfigError(_origin(expanded, written) + problem) from None
    except flags.UnrecognizedFlagError as error:
        name = error.flagname
        raise ConfigError(f"{_origin(expanded, name)}--{name}: unknown flag; {_hint(name)}") from None
    except (flags.Error, ValueError) as error:
        raise ConfigError(str(error)) from None
    if rest:
        raise ConfigError(
            f"{_origin(expanded, rest[0])}{rest[0]}: unexpected argument; expected --flag=value"
        )
    config = from_flags(values)
    passed_over = superseded(config, expanded)
    counting = [argument for argument in expanded if flagfiles.flag_name(argument) not in passed_over]
    return config.replace(**passed_over), counting


def define_flags(values: flags.FlagValues) -> None:
    """Defines one flag in `values` for each field of `ExperimentConfig`."""
    for flag, _ in ExperimentConfig().items():
        boolean = isinstance(flag.kind, (Switch, SwitchedChoice))
        # No default here: a flag that is absent must be told from one that is given its default's value.
        flags.DEFINE_flag(
            flags.Flag(_Parser(flag), None, flag.name, None, flag.help, boolean=boolean), flag_values=values
        )


def from_flags(values: flags.FlagValues) -> ExperimentConfig:
    """The configuration that parsed flags stand for."""
    given = [flag.name for flag, _ in ExperimentConfig().items() if values[flag.name].present]
    return ExperimentConfig.from_dict({name: values[name].value for name in given})


def explanation_asked(arguments: Sequence[str]) -> tuple[str, ConfigError | None] | None:
    """What the command would do if the arguments ask for that, else None.

    Data and weights need not be there, but the flags have to be right.

    Returns:
        The text of `explanation.explain`, and why the command would stop before it begins, if it would.

    Raises:
        ConfigError: as `parse` does, but for files that are missing.
    """
    rest = [argument for argument in arguments if argument not in _PRINT_CONFIG]
    if len(rest) == len(arguments):
        return None
    written, counting = _read(flagfiles.expand(rest))
    written.check_flags()
    validation.check_backbone_name(written)
    problem = None
    try:
        written.validate()
    except UserError as error:
        problem = ConfigError(str(error))
    config = written.resolve()
    if config.run.run_dir is None:
        config = config.replace(run_dir=_default_run_dir(rest, config))
    return explanation.explain(written, config, counting), problem


def help_asked(arguments: Sequence[str]) -> str | None:
    """The help text if the arguments ask for one, else None."""
    if any(argument in _FULL_HELP for argument in arguments):
        return help_text(full=True)
    if any(argument in _HELP for argument in arguments):
        return help_text(full=False)
    return None


def help_text(full: bool) -> str:
    """All flags by group, with what each means and its default; `full` adds the values it takes."""
    width = min(shutil.get_terminal_size((110, 24)).columns, 120)
    blocks = [
        "Trains an embedding model, evaluates it on classes that it never saw, and exports it.\n\n"
        "  python train.py --flagfile=configs/emoji.cfg [--flag=value ...]\n\n"
        "Of several values of a flag the last one counts. What a flagfile says does not count where it does\n"
        "nothing with what is said on top, such as --samples_per_class with --sampler=random.\n"
        "--helpfull adds the values that each flag takes;\n"
        "--print_config shows what a command would do, and where each value comes from."
    ]
    for _, section in ExperimentConfig().groups():
        lines = [str(type(section).__doc__)]
        lines += [_help_of(flag, full, width) for flag in flags_of(section)]
        blocks.append("\n".join(lines))
    return "\n\n".join(blocks)


class _Parser(flags.ArgumentParser):  # type: ignore[type-arg,unused-ignore]
    """Lets absl parse the text of a flag as its field does."""

    def __init__(self, flag: Flag) -> None:
        super().__init__()
        self._flag = flag

    def parse(self, argument: str) -> Any:
        return self._flag.parse(argument)


def _help_of(flag: Flag, full: bool, width: int) -> str:
    default = "" if flag.optional or flag.default == () else f" (default: {flag.format(flag.default)})"
    values = f" Takes {flag.kind.expected}." if full else ""
    return textwrap.fill(
        f"{flag.help}{values}{default}",
        width,
        initial_indent=f"  --{flag.name}".ljust(34) + " ",
        subsequent_indent=" " * 35,
    )


def _hint(name: str) -> str:
    """What a user who wrote the unknown flag `name` can do."""
    similar = difflib.get_close_matches(name, [flag.name for flag, _ in ExperimentConfig().items()], n=1)
    return f"did you mean --{similar[0]}?" if similar else "--help lists all flags"


def _origin(arguments: Sequence[Argument], written: str) -> str:
    """Where the flag was written as a prefix of a message; empty for the command line."""
    wanted = written.lstrip("-")
    for argument in reversed(arguments):
        text = argument.text.lstrip("-")
        if argument.origin and (text == wanted or text.startswith(f"{wanted}=")):
            return f"{argument.origin}: "
    return ""


def _default_run_dir(arguments: Sequence[str], config: ExperimentConfig) -> str:
    """runs/<config>-<UTC time>, the config being the flagfiles on the command line, such as cub-ms_ccp."""
    files = flagfiles.included(arguments)
    if files:
        name = "-".join(os.path.splitext(os.path.basename(file))[0] for file in files)
    else:
        name = f"{config.data.dataset}-{config.loss.loss.replace('/', '-')}"
    now = datetime.datetime.now(datetime.UTC)
    folder = os.path.join("runs", f"{name}-{now:%Y%m%d-%H%M%S}")
    # A run that began in the same second, or before the clock was set back, is not this one.
    others = (f"{folder}-{number}" for number in itertools.count(2))
    return folder if not os.path.exists(folder) else next(path for path in others if not os.path.exists(path))
