"""Exports the model of a finished run: `python -m ccp_dml.export --run_dir=DIR --output=DIR2`."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence

from ccp_dml import commands
from ccp_dml.errors import ConfigError
from ccp_dml.run_directory import RunDirectory


def main(arguments: Sequence[str]) -> None:
    """Writes the SavedModel of the run that the arguments name."""
    parser = commands.Parser(
        "python -m ccp_dml.export", "Exports the model of a finished run as a SavedModel."
    )
    parser.add_argument("--run_dir", required=True, help="folder of the run")
    parser.add_argument("--output", required=True, help="folder of the SavedModel; new or empty")
    parsed = parser.parse_args(arguments)
    RunDirectory(parsed.run_dir).read_results()
    if os.path.exists(parsed.output) and (not os.path.isdir(parsed.output) or os.listdir(parsed.output)):
        raise ConfigError(f"--output={parsed.output}: expected a new or empty folder; found files there")

    from ccp_dml import experiment  # TensorFlow, which a mistake above must not wait for

    experiment.export(parsed.run_dir, parsed.output)


if __name__ == "__main__":
    sys.exit(commands.run(lambda: main(sys.argv[1:])))
