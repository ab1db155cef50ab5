"""Trains, evaluates and exports an embedding model: `python train.py --flagfile=configs/emoji.cfg`."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Sequence

from ccp_dml import commands
from ccp_dml.config import command_line
from ccp_dml.run_directory import RunDirectory
from ccp_dml.run_lock import run_lock


def main(arguments: Sequence[str]) -> None:
    """Runs the experiment that the flags describe, or prints what was asked for about them."""
    help_text = command_line.help_asked(arguments)
    if help_text is not None:
        print(help_text)
        return
    explained = command_line.explanation_asked(arguments)
    if explained is not None:
        text, problem = explained
        print(text)
        if problem is not None:
            commands.warn(f"as it is, the command stops with: {problem}")
        return
    config = command_line.parse(arguments)
    directory = RunDirectory.of(config)
    directory.check(config, writes=config.writes)
    for warning in config.warnings():
        commands.warn(warning)

    with run_lock(directory.path) if config.writes else contextlib.nullcontext():
        from ccp_dml import experiment  # TensorFlow, which a mistake above must not wait for

        experiment.train(config)


if __name__ == "__main__":
    sys.exit(commands.run(lambda: main(sys.argv[1:])))
