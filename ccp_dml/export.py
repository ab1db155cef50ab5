"""Exports the model of a finished run: `python -m ccp_dml.export --run_dir=DIR --output=DIR2`."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence

from ccp_dml import commands
from ccp_dml.config.checks import with_other_evaluation
from ccp_dml.errors import ConfigError
from ccp_dml.run_directory import RunDirectory


def main(arguments: Sequence[str]) -> None:
    """Writes the SavedModel of the run that the arguments name, or of all runs of a group."""
    parser = commands.Parser(
        "python -m ccp_dml.export", "Exports the model of a finished run as a SavedModel."
    )
    parser.add_path("--run_dir", "folder of the run or group of runs", required=True)
    parser.add_path("--output", "folder of the SavedModel, new or empty", required=True)
    parser.add_argument(
        "--pca_dim", type=int, help="dimensions of the embeddings after a PCA (default: as in the run)"
    )
    parsed = parser.parse_args(arguments)
    directory = RunDirectory(parsed.run_dir)
    directory.read_results()
    if os.path.exists(parsed.output) and (not os.path.isdir(parsed.output) or os.listdir(parsed.output)):
        raise ConfigError(f"--output={parsed.output}: expected a new or empty folder; found files there")
    with_other_evaluation(directory.read_config(), pca_dim=parsed.pca_dim)

    # Imports TensorFlow, for which a mistake above need not wait.
    from ccp_dml.experiment.run import export

    export(parsed.run_dir, parsed.output, parsed.pca_dim)


def run() -> int:
    """Runs the command, and returns its exit code."""
    return commands.run(lambda: main(sys.argv[1:]))


if __name__ == "__main__":
    sys.exit(run())
