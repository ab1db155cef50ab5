"""Repeats the test evaluation of a finished run: `python -m ccp_dml.evaluate --run_dir=DIR`."""

from __future__ import annotations

import sys
from collections.abc import Sequence

from ccp_dml import commands
from ccp_dml.run_directory import RunDirectory


def main(arguments: Sequence[str]) -> None:
    """Evaluates the run that the arguments name and prints its table."""
    parser = commands.Parser("python -m ccp_dml.evaluate", "Evaluates a finished run on its test classes.")
    parser.add_argument("--run_dir", required=True, help="folder of the run")
    run_dir = parser.parse_args(arguments).run_dir
    RunDirectory(run_dir).read_results()

    from ccp_dml import experiment  # TensorFlow, which a mistake above must not wait for

    experiment.evaluate(run_dir)


if __name__ == "__main__":
    sys.exit(commands.run(lambda: main(sys.argv[1:])))
