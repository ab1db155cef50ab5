"""The command line of an experiment: absl flags, made from the options."""

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

from ccp_dml.config import checks, flagfiles, protocols
from ccp_dml.config.experiment_config import ExperimentConfig
from ccp_dml.config.flagfiles import Argument
from ccp_dml.errors import ConfigError, UserError
from ccp_dml.options import Choice, Option, Switch, options_of

_HELP = ("--help", "-help", "-h", "--helpshort", "-helpshort")
_FULL_HELP = ("--helpfull", "-helpfull")
_PRINT_CONFIG = ("--print_config", "-print_config")
_USAGE = """\
Trains an embedding model, evaluates it on classes that it never saw, and exports it.

  python train.py --flagfile=configs/emoji.cfg [--flag=value ...]

Of several values of a flag the last one counts. --helpfull adds the values that each flag takes;
--print_config shows what a command would do, and where each value comes from."""


def parse(arguments: Sequence[str]) -> ExperimentConfig:
    """The valid and complete configuration of command-line arguments (without the program).

    Raises:
        ConfigError: if an argument is wrong; the message is one line that names it and its flagfile.
    """
    expanded = flagfiles.expand(arguments)
    config = _read(expanded)
    checks.check(config, may_have_no_effect=_only_in_flagfiles(expanded))
    return _with_run_dir(protocols.resolve(config), arguments)


def read(arguments: Sequence[str]) -> ExperimentConfig:
    """The configuration as written: each value in its range, none checked against another or filled in.

    Raises:
        ConfigError: if an argument is no flag, or its value is not one that the flag takes.
    """
    return _read(flagfiles.expand(arguments))


def warnings(arguments: Sequence[str]) -> list[str]:
    """Sentences on valid arguments that the user should know of.

    Flags of flagfiles that have no effect are among them; on the command line they are errors.
    """
    expanded = flagfiles.expand(arguments)
    config, given = _read(expanded), flagfiles.last_given(expanded)
    ignored = [f"{given[declared.name].origin}: {text}" for declared, text in checks.without_effect(config)]
    return [*checks.warnings(config), *ignored]


def define_flags(values: flags.FlagValues) -> None:
    """Defines one flag in `values` for each option."""
    for declared, _ in ExperimentConfig().items():
        kind = declared.kind
        boolean = isinstance(kind, Switch) or (isinstance(kind, Choice) and kind.on is not None)
        # No default here: an absent flag differs from one that is set to its default.
        flags.DEFINE_flag(
            flags.Flag(_Parser(declared), None, declared.name, None, declared.help, boolean=boolean),
            flag_values=values,
        )


def from_flags(values: flags.FlagValues) -> ExperimentConfig:
    """The configuration of parsed flags."""
    given = [declared.name for declared, _ in ExperimentConfig().items() if values[declared.name].present]
    return ExperimentConfig.from_dict({name: values[name].value for name in given})


def explanation_asked(arguments: Sequence[str]) -> tuple[str, ConfigError | None] | None:
    """What the command would do if the arguments ask for that, else None.

    Data and weights need not exist, but the flags have to be right.

    Returns:
        The text of `explain`, and the reason why the command would stop before it begins, if it would.

    Raises:
        ConfigError: as `parse` does, but for missing files.
    """
    rest = [argument for argument in arguments if argument not in _PRINT_CONFIG]
    if len(rest) == len(arguments):
        return None
    expanded = flagfiles.expand(rest)
    written, ignored = _read(expanded), _only_in_flagfiles(expanded)
    checks.check_flags(written, may_have_no_effect=ignored)
    checks.check_backbone_name(written)
    problem = None
    try:
        checks.check(written, may_have_no_effect=ignored)
    except UserError as error:
        problem = ConfigError(str(error))
    return explain(written, _with_run_dir(protocols.resolve(written), rest), expanded), problem


def explain(written: ExperimentConfig, config: ExperimentConfig, arguments: Sequence[Argument]) -> str:
    """The runs that a command makes, and every flag that has a value.

    Args:
        written: the flags as they were given.
        config: the same, complete, with a run directory.
        arguments: the command line with its flagfiles expanded.

    Returns:
        Lines `--flag=value  origin` by group of flags; the origin is "default", "FILE, line N", "command
        line", or "derived" where the value follows from other flags. Flags without a value (the loss's own
        holds) and those of CCP where it is not used are left out.
    """
    origins = {name: last.origin or "command line" for name, last in flagfiles.last_given(arguments).items()}
    given = {declared.name: value for declared, value in written.items()}

    def origin(declared: Option, value: Any) -> str:
        if declared.name in origins and given[declared.name] is not None:
            return origins[declared.name]
        return "default" if value == declared.default else "derived"

    blocks = [_runs(config)]
    for group, section in config.groups():
        if group == "projections" and not config.uses_projections:
            continue
        lines = {
            f"  --{declared.name}={declared.format(value)}": origin(declared, value)
            for declared in options_of(section)
            if (value := getattr(section, declared.name)) is not None
        }
        if lines:
            width = max(map(len, lines))
            rows = [f"{line.ljust(width)}  {place}" for line, place in lines.items()]
            blocks.append("\n".join([str(type(section).__doc__), *rows]))
    return "\n\n".join(blocks)


def help_asked(arguments: Sequence[str]) -> str | None:
    """The help text if the arguments ask for one, else None."""
    if any(argument in _FULL_HELP for argument in arguments):
        return help_text(full=True)
    if any(argument in _HELP for argument in arguments):
        return help_text(full=False)
    return None


def help_text(full: bool) -> str:
    """All flags by group, with their meaning and default; `full` adds the values that they take."""
    width = min(shutil.get_terminal_size((110, 24)).columns, 120)
    blocks = [_USAGE]
    for _, section in ExperimentConfig().groups():
        lines = [str(type(section).__doc__)]
        lines += [_help_of(declared, full, width) for declared in options_of(section)]
        blocks.append("\n".join(lines))
    return "\n\n".join(blocks)


class _Parser(flags.ArgumentParser):  # type: ignore[type-arg,unused-ignore]
    """Lets absl parse the text of a flag as its option does."""

    def __init__(self, declared: Option) -> None:
        super().__init__()
        self._declared = declared

    def parse(self, argument: str) -> Any:
        return self._declared.parse(argument)


def _read(expanded: Sequence[Argument]) -> ExperimentConfig:
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
    return from_flags(values)


def _only_in_flagfiles(expanded: Sequence[Argument]) -> set[str]:
    """Flags whose value is from a flagfile: they may have no effect with the flags added to it."""
    return {name for name, last in flagfiles.last_given(expanded).items() if last.file}


def _runs(config: ExperimentConfig) -> str:
    if not protocols.is_group(config):
        return f"One run in {config.run.run_dir}."
    members = protocols.members(config)
    lines = [f"{len(members)} runs, then a report on all of them in {config.run.run_dir}:"]
    lines += [f"  {member}: {member.config.run.run_dir}" for member in members]
    return "\n".join(lines)


def _help_of(declared: Option, full: bool, width: int) -> str:
    shown = not declared.optional and declared.default != ()
    default = f" (default: {declared.format(declared.default)})" if shown else ""
    values = f" Takes {declared.kind.expected}." if full else ""
    return textwrap.fill(
        f"{declared.help}{values}{default}",
        width,
        initial_indent=f"  --{declared.name}".ljust(34) + " ",
        subsequent_indent=" " * 35,
    )


def _hint(name: str) -> str:
    """Advice on the unknown flag `name`."""
    known = [declared.name for declared, _ in ExperimentConfig().items()]
    similar = difflib.get_close_matches(name, known, n=1)
    return f"did you mean --{similar[0]}?" if similar else "--help lists all flags"


def _origin(arguments: Sequence[Argument], written: str) -> str:
    """The place where a flag was written, as a prefix of a message; empty for the command line."""
    wanted = written.lstrip("-")
    for argument in reversed(arguments):
        text = argument.text.lstrip("-")
        if argument.origin and (text == wanted or text.startswith(f"{wanted}=")):
            return f"{argument.origin}: "
    return ""


def _config_name(flagfile: str) -> str:
    *folders, name = os.path.normpath(os.path.splitext(flagfile)[0]).split(os.sep)
    if "configs" in folders:
        below = len(folders) - folders[::-1].index("configs")
        return "-".join([*folders[below:], name])
    return name


def _with_run_dir(config: ExperimentConfig, arguments: Sequence[str]) -> ExperimentConfig:
    """Names the run directory runs/<config>-<UTC time> unless there is one.

    The config is the path of the flagfile in configs/, such as cub-ms_ccp; several flagfiles are joined.
    """
    if config.run.run_dir is not None:
        return config
    flagged = [_config_name(file) for file in flagfiles.included(arguments)]
    name = "-".join(flagged) or f"{config.source.dataset}-{config.loss.loss.replace('/', '-')}"
    folder = os.path.join("runs", f"{name}-{datetime.datetime.now(datetime.UTC):%Y%m%d-%H%M%S}")
    # Another run may have begun in the same second, or before the clock was set back.
    others = (f"{folder}-{number}" for number in itertools.count(2))
    free = next(path for path in itertools.chain([folder], others) if not os.path.exists(path))
    return config.replace(run_dir=free)
