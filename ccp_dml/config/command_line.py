"""The command line of an experiment: absl flags of the options, help, and the explanation of a command."""

from __future__ import annotations

import datetime
import difflib
import itertools
import os
import shutil
import textwrap
from collections.abc import Sequence
from typing import Any, NamedTuple

from absl import flags

from ccp_dml.config import checks, flagfiles, protocols
from ccp_dml.config.experiment_config import ExperimentConfig
from ccp_dml.config.flagfiles import Argument
from ccp_dml.errors import ConfigError, UserError
from ccp_dml.options import Option, options_of

_HELP = ("--help", "-help", "-h", "--helpshort", "-helpshort")
_FULL_HELP = ("--helpfull", "-helpfull")
_PRINT_CONFIG = ("--print_config", "-print_config")
_USAGE = """\
Trains an embedding model, evaluates it on classes that it has never seen, and exports it.

  python train.py --flagfile=configs/emoji.cfg [--flag=value ...]

If a flag is given more than once, its last value counts. --helpfull adds the values that each flag takes;
--print_config shows the runs that a command would make, and the origin of every value."""


class Given(NamedTuple):
    """The value of a flag, and the argument that gave it."""

    value: Any
    argument: Argument


def parse(arguments: Sequence[str]) -> ExperimentConfig:
    """Makes the valid and complete configuration of command-line arguments (without the program).

    Raises:
        ConfigError: if an argument is wrong; the message is one line that names it and its flagfile.
        UserError: if the data cannot be used.
    """
    given = _given(flagfiles.expand(arguments))
    config = _config(given)
    checks.check(config, may_have_no_effect=_from_flagfiles(given))
    return _with_run_dir(protocols.resolve(config), arguments)


def read(arguments: Sequence[str]) -> ExperimentConfig:
    """Makes the configuration as written: each value in its range, without further checks or derived values.

    Raises:
        ConfigError: if an argument is not a flag, or its value is out of range.
    """
    return _config(_given(flagfiles.expand(arguments)))


def warnings(arguments: Sequence[str]) -> list[str]:
    """Warnings about valid arguments.

    Flags in flagfiles that have no effect are among them. On the command line they are errors.
    """
    given = _given(flagfiles.expand(arguments))
    config = _config(given)
    ignored = [f"{given[name].argument.origin}: {text}" for name, text in checks.without_effect(config)]
    return [*checks.warnings(config), *ignored]


def explanation_asked(arguments: Sequence[str]) -> tuple[str, str | None] | None:
    """The explanation of a command, if its arguments ask for that.

    Data and weights need not exist, but the flags have to be right.

    Returns:
        The text of `explain`, and the error with which the command would stop, if any; None if the arguments
        do not ask for an explanation.

    Raises:
        ConfigError: as `parse`, except for missing files.
    """
    rest = [argument for argument in arguments if argument not in _PRINT_CONFIG]
    if len(rest) == len(arguments):
        return None
    given = _given(flagfiles.expand(rest))
    written, ignored = _config(given), _from_flagfiles(given)
    checks.check_flags(written, may_have_no_effect=ignored)
    checks.check_backbone_name(written)
    problem = None
    try:
        checks.check(written, may_have_no_effect=ignored)
    except UserError as error:
        problem = str(error)
    return explain(_with_run_dir(protocols.resolve(written), rest), given), problem


def explain(config: ExperimentConfig, given: dict[str, Given]) -> str:
    """Lists the runs that a command makes, and every flag that has a value.

    Args:
        config: complete, with a run directory.
        given: the flags that were given.

    Returns:
        Lines `--flag=value  origin` by group of flags; the origin is "default", "FILE, line N", "command
        line", or "derived" for a value that follows from other flags. Flags without a value (the default of
        the loss holds) are left out, and those of CCP if the loss does not use it.
    """

    def origin(declared: Option, value: Any) -> str:
        if declared.name in given and given[declared.name].value is not None:
            return given[declared.name].argument.origin
        return "default" if value == declared.default else "derived"

    blocks = [_runs(config)]
    for heading, values in flagfiles.groups_with_values(config):
        lines = [
            (f"  --{declared.name}={declared.format(value)}", origin(declared, value))
            for declared, value in values
        ]
        width = max(len(line) for line, _ in lines)
        blocks.append("\n".join([heading, *(f"{line.ljust(width)}  {found}" for line, found in lines)]))
    return "\n\n".join(blocks)


def help_asked(arguments: Sequence[str]) -> str | None:
    """The help text, if the arguments ask for it, else None."""
    if any(argument in _FULL_HELP for argument in arguments):
        return help_text(full=True)
    if any(argument in _HELP for argument in arguments):
        return help_text(full=False)
    return None


def help_text(full: bool) -> str:
    """Lists all flags by group, with their meaning and default; `full` adds the values that they take."""
    width = min(shutil.get_terminal_size((110, 24)).columns, 120)
    blocks = [_USAGE]
    for _, section in ExperimentConfig().groups():
        lines = [str(type(section).__doc__)]
        lines += [_help_of(declared, full, width) for declared in options_of(section)]
        blocks.append("\n".join(lines))
    return "\n\n".join(blocks)


def _given(expanded: Sequence[Argument]) -> dict[str, Given]:
    """Reads flags; of several values of a flag, the last one counts."""
    values, found = _flag_values(), {}
    remaining = iter(expanded)
    for argument in remaining:
        text = argument.text
        name = text.lstrip("-").partition("=")[0]
        if name in values and "=" not in text and not values[name].boolean:
            # `--name value`; the value may begin with a dash.
            following = next(remaining, None)
            if following is None:
                raise ConfigError(f"{argument.prefix}--{name}: there is no value; expected --{name}=value")
            text += f"={following.text}"
        try:
            # One argument at a time, so that an error has its origin.
            rest = values(["train.py", text])[1:]
        except flags.IllegalFlagValueError as error:
            raise ConfigError(argument.prefix + str(error).removeprefix("flag ")) from None
        except flags.UnrecognizedFlagError:
            similar = difflib.get_close_matches(name, list(values), n=1)
            advice = f"did you mean --{similar[0]}?" if similar else "--help lists all flags"
            raise ConfigError(f"{argument.prefix}--{name}: unknown flag; {advice}") from None
        except ValueError:  # --noname=value
            raise ConfigError(f"{argument.prefix}{text}: unexpected value; expected --{name}") from None
        if rest or text == "--":
            raise ConfigError(f"{argument.prefix}{text}: unexpected argument; expected --flag=value")
        given = name if name in values else name.removeprefix("no")
        found[given] = Given(values[given].value, argument)
    return found


def _flag_values() -> flags.FlagValues:
    """One absl flag for each option."""
    values = flags.FlagValues()
    for declared, _ in ExperimentConfig().items():
        flag = flags.Flag(
            _Parser(declared), None, declared.name, None, declared.help, boolean=declared.kind.is_switch
        )
        flags.DEFINE_flag(flag, flag_values=values)
    return values


class _Parser(flags.ArgumentParser):  # type: ignore[type-arg,unused-ignore]
    """Lets absl read the text of a flag as its option does."""

    def __init__(self, declared: Option) -> None:
        super().__init__()
        self._declared = declared

    def parse(self, argument: str) -> Any:
        return self._declared.parse(argument)


def _config(given: dict[str, Given]) -> ExperimentConfig:
    return ExperimentConfig.from_dict({name: value for name, (value, _) in given.items()})


def _from_flagfiles(given: dict[str, Given]) -> set[str]:
    """Flags whose values are from flagfiles; they may have no effect with the other flags."""
    return {name for name, (_, argument) in given.items() if argument.file}


def _runs(config: ExperimentConfig) -> str:
    """The runs and their folders."""
    if not protocols.is_group(config):
        return f"One run in {config.run.run_dir}."
    members = protocols.members(config)
    lines = [f"{len(members)} runs, then a report on all of them in {config.run.run_dir}:"]
    lines += [f"  {member}: {member.config.run.run_dir}" for member in members]
    return "\n".join(lines)


def _help_of(declared: Option, full: bool, width: int) -> str:
    """The lines of help on a flag."""
    text = declared.help
    if not declared.optional and declared.default != ():
        text = f"{text.removesuffix('.')} (default: {declared.format(declared.default)})."
    if full:
        text += f" Takes {declared.kind.expected}."
    return textwrap.fill(
        text, width, initial_indent=f"  --{declared.name}".ljust(34) + " ", subsequent_indent=" " * 35
    )


def _config_name(flagfile: str) -> str:
    """The path of a flagfile below configs/, joined by dashes, such as cub-ms_ccp; else its name."""
    *folders, name = os.path.normpath(os.path.splitext(flagfile)[0]).split(os.sep)
    if "configs" in folders:
        below = len(folders) - folders[::-1].index("configs")
        return "-".join([*folders[below:], name])
    return name


def _with_run_dir(config: ExperimentConfig, arguments: Sequence[str]) -> ExperimentConfig:
    """Sets the run directory to runs/<name>-<UTC time>, unless there is one.

    The name is that of the flagfiles on the command line, else that of the data set and the loss.
    """
    if config.run.run_dir is not None:
        return config
    names = [_config_name(file) for file in flagfiles.included(arguments)]
    name = "-".join(names) or f"{config.source.dataset}-{config.loss.loss.replace('/', '-')}"
    folder = os.path.join("runs", f"{name}-{datetime.datetime.now(datetime.UTC):%Y%m%d-%H%M%S}")
    # Another run may have begun in the same second, or before the clock was set back.
    others = (f"{folder}-{number}" for number in itertools.count(2))
    free = next(path for path in itertools.chain([folder], others) if not os.path.exists(path))
    return config.replace(run_dir=free)
