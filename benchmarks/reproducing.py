"""The paper's tables row by row: the command of each row, its score in the paper, and ours where measured.

    python -m benchmarks.reproducing                # docs/reproducing.md and the headers of configs/losses
    python -m benchmarks.reproducing --add=DIR,DIR  # the same with the results of these finished groups

A group (docs/protocols.md) is taken in if its flags are those of a row's command, but for paths, seed,
repeats and what changes no score. The scores are kept in reproducing.json beside this file.
"""

from __future__ import annotations

import argparse
import itertools
import json
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from ccp_dml.config import ExperimentConfig, command_line
from ccp_dml.evaluation import paper

ROOT = Path(__file__).parents[1]
MEASURED = Path(__file__).with_suffix(".json")
DOCUMENT = ROOT / "docs" / "reproducing.md"
LOSSES = ROOT / "configs" / "losses"
DATASETS = {
    "cub": "CUB-200-2011",
    "cars196": "Cars196",
    "inshop": "In-shop",
    "sop": "Stanford Online Products",
}
# How the report on a group calls what has so many dimensions.
KINDS = {512: "concatenated", 128: "separate"}
METRICS = ("precision_at_1", "r_precision", "map_at_r")
# In the paper, by method without its sizes -S and -L: thousands of steps to converge on SOP and In-shop, and
# milliseconds per batch of 32 on an RTX 2080 Ti.
STEPS = {
    "C2": (62, 114),
    "C2-XBM": (81, 93),
    "C2-CCP": (69, 127),
    "MS": (67, 98),
    "MS-CCP": (91, 131),
    "Triplet": (93, 73),
    "Triplet-CCP": (124, 115),
    "ProxyAnchor": (54, 87),
    "ProxyNCA++": (88, 103),
    "SoftTriple": (48, 82),
}
MILLISECONDS = {"C2": 97, "C2-CCP": 105}
# What a run may have other than the command of its row.
_FREE = {
    *("data_dir", "prepared_dir", "download", "run_dir", "overwrite", "seed", "repeat", "checkpoint_keep"),
    *("tensorboard", "tensorboard_panels", "tensorboard_histograms", "tensorboard_projector", "track_test"),
    *("recall_at", "precision_at", "map_at", "evaluation_batch_size", "chunk_size"),
}
_BEGIN, _END = "<!-- made by benchmarks.reproducing -->", "<!-- end of what is made -->"


class Row(NamedTuple):
    """A row of the paper's tables that a command of this project stands for."""

    dataset: str
    method: str  # as the paper calls it
    dimensions: int
    flagfile: str  # its name in configs/losses
    scores: tuple[float, ...]

    @property
    def key(self) -> str:
        """The row's name in reproducing.json."""
        return f"{self.dataset}/{self.method}/{self.dimensions}"

    @property
    def arguments(self) -> list[str]:
        """The command line of the row without the place of the images."""
        return [f"--flagfile=configs/{name}.cfg" for name in (self.dataset, f"losses/{self.flagfile}")]

    @property
    def command(self) -> str:
        """What a user types."""
        return " ".join(["python train.py", *self.arguments, "--data_dir=DIR"])

    @property
    def config(self) -> ExperimentConfig:
        """The flags of the command."""
        return command_line.read(
            [argument.replace("configs", str(ROOT / "configs")) for argument in self.arguments]
        )


def rows() -> list[Row]:
    """The rows in order of data set and flagfile, that of 512 dimensions first."""
    found = []
    for dataset in DATASETS:
        for file in sorted(LOSSES.glob("*.cfg")):
            config = command_line.read([f"--dataset={dataset}", f"--flagfile={file}"])
            for dimensions in KINDS:
                row = paper.published(dataset, config.loss.loss, dimensions)
                assert row is not None, f"{file}: the paper has no such method"
                method, means = row
                scores = tuple(round(100 * means[name], 2) for name in METRICS)
                found.append(Row(dataset, method, dimensions, file.stem, scores))
    return found


def cost(dataset: str, method: str) -> str:
    """What the paper says of the cost of one run."""
    name = re.sub("-[SL]$", "", method)
    steps = dict(zip(("sop", "inshop"), STEPS.get(name, ()))).get(dataset)
    said = [f"{steps}K steps"] if steps else []
    said += [f"{MILLISECONDS[name]} ms each"] if name in MILLISECONDS else []
    return ", ".join(said) or "not reported"


def take_in(directory: Path, measured: dict[str, Any]) -> None:
    """Adds the scores of a finished group to those that are measured.

    Raises:
        SystemExit: the group is no row of the paper's tables; the message says in which flags it differs.
    """
    results = json.loads((directory / "results.json").read_text())
    config = ExperimentConfig.from_dict(results["config"])
    same = [
        row
        for row in rows()
        if (row.dataset, row.config.loss.loss) == (config.data.dataset, config.loss.loss)
    ]
    if not same:
        method = f"--dataset={config.data.dataset} --loss={config.loss.loss}"
        raise SystemExit(f"{directory}: the paper's tables have no row of {method}")
    expected, found = same[0].config.resolve().to_dict(), config.to_dict()
    other = [name for name in found if name not in _FREE and found[name] != expected[name]]
    if other:
        flags = " ".join(f"--{name}={found[name]}" for name in other)
        raise SystemExit(f"{directory}: found {flags}; expected them as in {same[0].command}")
    for row in same:
        of_kind = results[KINDS[row.dimensions]]
        several = "confidence_95" in of_kind
        measured[row.key] = {
            "repeats": len(of_kind["repeats"]),
            "mean": [of_kind["mean"][name] for name in METRICS],
            "confidence_95": [of_kind["confidence_95"][name] for name in METRICS] if several else None,
        }


def document(text: str, measured: Mapping[str, Any]) -> str:
    """The document with its tables as they are now."""
    head, rest = text.split(_BEGIN)
    return "\n".join([head + _BEGIN, *_tables(measured), _END + rest.split(_END)[1]])


def _tables(measured: Mapping[str, Any]) -> Iterator[str]:
    for dataset, name in DATASETS.items():
        yield f"\n### {name}\n"
        yield "| method | dimensions | paper: P@1, P@R, MAP@R | here | cost of a run in the paper | command |"
        yield "|---|---|---|---|---|---|"
        for row in rows():
            if row.dataset == dataset:
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


def header(text: str, flagfile: str) -> str:
    """A flagfile of configs/losses with what its header says of scores, cost and command as it is now."""
    lines = text.splitlines()
    flags = list(itertools.dropwhile(lambda line: line.startswith("#"), lines))
    return "\n".join([lines[0], *_header(flagfile), *flags, ""])


def _header(flagfile: str) -> Iterator[str]:
    mine = {(row.dataset, row.dimensions): row for row in rows() if row.flagfile == flagfile}
    yield "#"
    yield "# Protocol: four class folds, three times (docs/protocols.md); goes on top of a data set."
    yield "# Source:   Deep Metric Learning with Chance Constraints (arXiv 2209.09060), supplement."
    yield "# Expected: P@1, P@R, MAP@R in the paper; what was measured here is in docs/reproducing.md."
    yield f"#   {'':10}{'concatenated, 512-d':24}mean of the folds, 128-d"
    for dataset in DATASETS:
        scores = [" ".join(f"{score:6.2f}" for score in mine[dataset, kind].scores) for kind in KINDS]
        yield f"#   {dataset:10}{scores[0]:24}{scores[1]}"
    costs = [f"{dataset} {cost(dataset, mine[dataset, 512].method)}" for dataset in ("sop", "inshop")]
    yield f"# Cost:     12 runs; in the paper, on an RTX 2080 Ti: {'; '.join(costs)}."
    yield f"# Command:  {mine['cub', 512].command}"


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--add", default="", help="folders of finished groups, separated by commas")
    options = parser.parse_args()
    measured = json.loads(MEASURED.read_text())
    for directory in filter(None, options.add.split(",")):
        take_in(Path(directory), measured)
    MEASURED.write_text(json.dumps(measured, indent=1, sort_keys=True) + "\n")
    DOCUMENT.write_text(document(DOCUMENT.read_text(encoding="utf-8"), measured), encoding="utf-8")
    for file in LOSSES.glob("*.cfg"):
        file.write_text(header(file.read_text(encoding="utf-8"), file.stem), encoding="utf-8")


if __name__ == "__main__":
    main()
