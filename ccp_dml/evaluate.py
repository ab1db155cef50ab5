"""Repeats the test evaluation of a finished run: `python -m ccp_dml.evaluate --run_dir=DIR`."""

from __future__ import annotations

import sys
from collections.abc import Sequence

from ccp_dml import commands
from ccp_dml.config.checks import with_other_evaluation
from ccp_dml.run_directory import RunDirectory


def main(arguments: Sequence[str]) -> None:
    """Evaluates the run, or the group of runs, that the arguments name and prints its table."""
    parser = commands.Parser("python -m ccp_dml.evaluate", "Evaluates a finished run on its test classes.")
    parser.add_argument("--run_dir", required=True, help="folder of the run, or of a group of runs")
    parser.add_argument("--dataset", help="score the test classes of this data set instead")
    parser.add_argument("--data_dir", help="where its source images are")
    parser.add_argument("--prepared_dir", help="where prepared data goes")
    parser.add_argument(
        "--pca_dim", type=int, help="dimensions to reduce embeddings to, by a PCA of training embeddings"
    )
    changes = vars(parser.parse_args(arguments))
    run_dir = changes.pop("run_dir")
    directory = RunDirectory(run_dir)
    directory.read_results()
    with_other_evaluation(directory.read_config(), **changes)

    from ccp_dml.experiment import run  # TensorFlow, which a mistake above must not wait for

    run.evaluate(run_dir, **changes)


if __name__ == "__main__":
    sys.exit(commands.run(lambda: main(sys.argv[1:])))
