"""Flags of a flagfile that give way to what is said on top of it.

So `--sampler=random` is enough where a flagfile says how many classes the batches of another sampler have. On
the command line, or in one file, two flags of which one does nothing stand for a mistake.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from ccp_dml.config.experiment_config import ExperimentConfig
from ccp_dml.config.flagfiles import Argument, last_given
from ccp_dml.config.useless_flags import useless


def superseded(config: ExperimentConfig, arguments: Sequence[Argument]) -> dict[str, Any]:
    """The flags of flagfiles that do nothing with what the command line, or a later file, says of another.

    Args:
        config: the flags as they were given.
        arguments: the command line with its flagfiles expanded, which gave them.

    Returns:
        Names of flags and their defaults, which are to hold.
    """
    places = last_given(arguments)
    return {
        flag.name: flag.default
        for flag, master in useless(config)
        if master.name in places and _is_on_top(arguments, places[master.name], places[flag.name])
    }


def _is_on_top(arguments: Sequence[Argument], place: int, other: int) -> bool:
    """Whether the argument at a place builds on the file in which the other one is."""
    file, other_file = arguments[place].file, arguments[other].file
    return bool(other_file) and file != other_file and (not file or place > other)
