"""Repeats the test evaluation of a finished run: `python -m ccp_dml.evaluate --run_dir=DIR`."""

from __future__ import annotations

import sys
from collections.abc import Sequence

from ccp_dml import commands
from ccp_dml.config.checks import with_other_evaluation
from ccp_dml.run_directory import RunDirectory


def main(arguments: Sequence[str]) -> None:
    """Evaluates the run or group of runs that the arguments name, and prints its table."""
    parser = commands.Parser("python -m ccp_dml.evaluate", "Evaluates a finished run on its test classes.")
    parser.add_path("--run_dir", "folder of the run or group of runs", required=True)
    parser.add_argument("--dataset", help="score the test classes of this data set instead")
    parser.add_path("--data_dir", "folder of its source images; of your own images, all are scored")
    parser.add_path("--prepared_dir", "folder of prepared data")
    parser.add_argument(
        "--pca_dim", type=int, help="dimensions of the embeddings after a PCA of training embeddings"
    )
    changes = vars(parser.parse_args(arguments))
    run_dir = changes.pop("run_dir")
    directory = RunDirectory(run_dir)
    directory.read_results()
    with_other_evaluation(directory.read_config(), **changes)

    # Imports TensorFlow, for which a mistake above need not wait.
    from ccp_dml.experiment.run import evaluate

    evaluate(run_dir, **changes)


def run() -> int:
    """Runs the command, and returns its exit code."""
    return commands.run(lambda: main(sys.argv[1:]))


if __name__ == "__main__":
    sys.exit(run())
