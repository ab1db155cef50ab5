"""What a command would do: `--print_config`. Every flag with its value and where that was said."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from ccp_dml.config.fields import Flag, flags_of
from ccp_dml.config.flagfiles import Argument, last_given

if TYPE_CHECKING:
    from ccp_dml.config.experiment_config import ExperimentConfig

_COMMAND_LINE = "command line"
_DERIVED = "derived"
_DEFAULT = "default"


def explain(written: ExperimentConfig, config: ExperimentConfig, arguments: Sequence[Argument]) -> str:
    """The runs that a command makes, and every flag that has a value.

    Args:
        written: the flags as they were given.
        config: the same, complete, with a run directory.
        arguments: those that gave them: the command line with its flagfiles expanded.

    Returns:
        Lines `--flag=value  origin` by group of flags; the origin is "default", "FILE, line N", "command
        line", or "derived" where the value follows from other flags. Flags without a value (the loss's own
        holds) and those of CCP where it is not used are left out.
    """
    places = last_given(arguments)
    origins = {name: arguments[place].origin or _COMMAND_LINE for name, place in places.items()}
    given = {flag.name: value for flag, value in written.items()}
    blocks = [_runs(config)]
    for group, section in config.groups():
        if group == "projection" and not config.uses_projections:
            continue
        lines = {
            f"  --{flag.name}={flag.format(value)}": _origin(flag, value, given[flag.name], origins)
            for flag in flags_of(section)
            if (value := getattr(section, flag.name)) is not None
        }
        if lines:
            width = max(map(len, lines))
            rows = [f"{line.ljust(width)}  {origin}" for line, origin in lines.items()]
            blocks.append("\n".join([str(type(section).__doc__), *rows]))
    return "\n\n".join(blocks)


def _runs(config: ExperimentConfig) -> str:
    """What is run, and where."""
    if not config.is_group:
        return f"One run in {config.run.run_dir}."
    lines = [f"{len(config.members)} runs, then a report on all of them in {config.run.run_dir}:"]
    lines += [f"  {member}: {member.config.run.run_dir}" for member in config.members]
    return "\n".join(lines)


def _origin(flag: Flag, value: Any, given: Any, origins: dict[str, str]) -> str:
    if flag.name in origins and given is not None:
        return origins[flag.name]
    return _DEFAULT if value == flag.default else _DERIVED
