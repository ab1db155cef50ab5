"""The rows of the paper's tables: the command, the paper's score, and ours where it was measured.

    python -m studies.reproducing.report                # rewrites the tables of docs/reproducing.md
    python -m studies.reproducing.report --add=DIR,DIR  # adds the scores of these finished groups first

A group (docs/protocols.md) is added if its flags are those of the command of a row; paths, seed, repeats and
flags that change no score may differ. The scores are kept in results.json.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from benchmarks.common.results import with_section
from ccp_dml.config import command_line
from ccp_dml.config.experiment_config import ExperimentConfig
from ccp_dml.config.protocols import resolve
from ccp_dml.evaluation.paper import published
from configs.generate import DATASETS, METHODS, cost

ROOT = Path(__file__).parents[2]
MEASURED = Path(__file__).with_name("results.json")
DOCUMENT = ROOT / "docs" / "reproducing.md"
# Dimensions of a row, and the key of its scores in the results of a group.
KINDS = {512: "concatenated", 128: "separate"}
METRICS = ("precision_at_1", "r_precision", "map_at_r")
# Flags in which a run may differ from the command of its row.
_FREE = {
    *("data_dir", "prepared_dir", "download", "run_dir", "overwrite", "seed", "repeat", "checkpoint_keep"),
    *("tensorboard", "tensorboard_panels", "tensorboard_histograms", "tensorboard_projector", "track_test"),
    *("recall_at", "precision_at", "map_at", "evaluation_batch_size", "chunk_size"),
}


class Row(NamedTuple):
    """A row of the paper's tables.

    Attributes:
        dataset: name of the data set.
        method: name of the method in the paper.
        dimensions: 128 for single models, 512 for the four concatenated ones.
        flagfile: path of the row's flagfile in `configs`.
        scores: P@1, P@R and MAP@R in the paper, in percent.
    """

    dataset: str
    method: str
    dimensions: int
    flagfile: str
    scores: tuple[float, ...]

    @property
    def key(self) -> str:
        """The row's name in results.json."""
        return f"{self.dataset}/{self.method}/{self.dimensions}"

    @property
    def command(self) -> str:
        """The command line."""
        return f"python train.py --flagfile=configs/{self.flagfile} --data_dir=DIR"

    @property
    def config(self) -> ExperimentConfig:
        """The flags of the command."""
        return command_line.read([f"--flagfile={ROOT / 'configs' / self.flagfile}"])


def rows() -> list[Row]:
    """The rows in order of data set and method, 512 dimensions first."""
    found = []
    for dataset in DATASETS:
        for method in sorted(METHODS):
            for dimensions in KINDS:
                row = published(dataset, METHODS[method].loss, dimensions)
                assert row is not None, f"{method}: the paper has no such method"
                name, means = row
                scores = tuple(round(100 * means[metric], 2) for metric in METRICS)
                found.append(Row(dataset, name, dimensions, f"{dataset}/{method}.cfg", scores))
    return found


def add(directory: Path, measured: dict[str, Any]) -> None:
    """Adds the scores of a finished group to the measured ones.

    Raises:
        SystemExit: if the group is no row of the paper's tables; the message names the flags that differ.
    """
    results = json.loads((directory / "results.json").read_text())
    config = ExperimentConfig.from_dict(results["config"])
    dataset, loss = config.source.dataset, config.loss.loss
    same = [row for row in rows() if (row.dataset, row.config.loss.loss) == (dataset, loss)]
    if not same:
        raise SystemExit(f"{directory}: the paper's tables have no row of --dataset={dataset} --loss={loss}")
    expected, found = resolve(same[0].config).to_dict(), config.to_dict()
    different = [name for name in found if name not in _FREE and found[name] != expected[name]]
    if different:
        flags = " ".join(f"--{name}={found[name]}" for name in different)
        raise SystemExit(f"{directory}: found {flags}; expected the flags of {same[0].command}")
    for row in same:
        scores = results[KINDS[row.dimensions]]
        several = "confidence_95" in scores
        measured[row.key] = {
            "repeats": len(scores["repeats"]),
            "mean": [scores["mean"][name] for name in METRICS],
            "confidence_95": [scores["confidence_95"][name] for name in METRICS] if several else None,
        }


def document(text: str, measured: Mapping[str, Any]) -> str:
    """The text of the document with its tables made anew."""
    return with_section(text, "tables", "studies.reproducing", _tables(measured))


def _tables(measured: Mapping[str, Any]) -> Iterator[str]:
    for name, dataset in DATASETS.items():
        yield f"### {dataset.title}"
        yield ""
        yield "| method | dimensions | paper: P@1, P@R, MAP@R | here | cost of a run in the paper | command |"
        yield "|---|---|---|---|---|---|"
        for row in rows():
            if row.dataset == name:
                yield _line(row, measured.get(row.key))
        yield ""


def _line(row: Row, scores: Mapping[str, Any] | None) -> str:
    expected = ", ".join(f"{score:.2f}" for score in row.scores)
    cells = (row.method, str(row.dimensions), expected, _ours(scores), cost(row.dataset, row.method))
    return f"| {' | '.join(cells)} | `{row.command}` |"


def _ours(scores: Mapping[str, Any] | None) -> str:
    if scores is None:
        return "not measured"
    values = [f"{100 * mean:.2f}" for mean in scores["mean"]]
    if scores["confidence_95"] is not None:
        widths = scores["confidence_95"]
        values = [f"{value} ± {100 * width:.2f}" for value, width in zip(values, widths, strict=True)]
    return f"{', '.join(values)} (repeats: {scores['repeats']})"


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--add", default="", help="folders of finished groups, separated by commas")
    options = parser.parse_args()
    measured = json.loads(MEASURED.read_text())
    for directory in filter(None, options.add.split(",")):
        add(Path(directory), measured)
    MEASURED.write_text(json.dumps(measured, indent=1, sort_keys=True) + "\n")
    DOCUMENT.write_text(document(DOCUMENT.read_text(encoding="utf-8"), measured), encoding="utf-8")


if __name__ == "__main__":
    main()
