"""Trains, evaluates and exports an embedding model: `python -m ccp_dml.train --flagfile=FILE`."""

from __future__ import annotations

import contextlib
import os
import sys
from collections.abc import Sequence

from ccp_dml import commands
from ccp_dml.config import command_line
from ccp_dml.distributed.cluster import is_chief
from ccp_dml.run_directory import RunDirectory


def main(arguments: Sequence[str]) -> None:
    """Runs the experiment that the flags describe, or prints the help or explanation that they ask for."""
    help_text = command_line.help_asked(arguments)
    if help_text is not None:
        print(help_text)
        return
    explained = command_line.explanation_asked(arguments)
    if explained is not None:
        text, problem = explained
        print(text)
        if problem is not None:
            commands.warn(f"the command would stop with: {problem}")
        return
    config = command_line.parse(arguments)
    directory, writes = RunDirectory.of(config), is_chief(config.devices, os.environ)
    directory.check(config, writes=writes)
    for warning in command_line.warnings(arguments):
        commands.warn(warning)

    with directory.locked() if writes else contextlib.nullcontext():
        # Imports TensorFlow; errors above should not have to wait for it.
        from ccp_dml.experiment.run import train

        train(config)


def run() -> int:
    """Runs the command, and returns its exit code."""
    return commands.run(lambda: main(sys.argv[1:]))


if __name__ == "__main__":
    sys.exit(run())
