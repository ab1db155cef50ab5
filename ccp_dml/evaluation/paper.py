"""The values that the paper reports (tables of arXiv 2209.09060, in `paper_results.csv`)."""

from __future__ import annotations

import csv
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

SOURCE = "arXiv 2209.09060"
BACKBONE = "bn_inception"
NUM_FOLDS = 4

_FILE = Path(__file__).with_name("paper_results.csv")
_METRICS = {"P@1": "precision_at_1", "P@R": "r_precision", "MAP@R": "map_at_r"}
_DATASETS = {"cub": "CUB", "cars196": "Cars196", "inshop": "InShop", "sop": "SOP"}
_LOSSES = {
    "original_contrastive": "C1",
    "contrastive": "C2",
    "multi_similarity": "MS",
    "triplet": "Triplet",
    "proxy_anchor": "ProxyAnchor",
    "proxy_nca": "ProxyNCA++",
    "soft_triple": "SoftTriple",
}
_WRAPPERS = {"ccp": "CCP", "xbm": "XBM"}
# Sizes of memories and proxy sets; the tables hold one of them per method and data set.
_SIZES = ("", "-S", "-L")


@dataclass(frozen=True)
class PaperResults:
    """Values of the paper that a group of runs is compared with.

    Attributes:
        method: the paper's name of the method.
        values: its metrics, in [0, 1], by kind of aggregate ("separate", "concatenated").
        differences: differences between the settings, in words.
    """

    method: str
    values: Mapping[str, Mapping[str, float]]
    differences: tuple[str, ...] = ()

    def __str__(self) -> str:
        return "; ".join([f"paper: {self.method} in {SOURCE}", *self.differences])

    def to_dict(self, kind: str) -> dict[str, Any]:
        """The values of one kind, ready for JSON."""
        note = "; ".join(self.differences)
        return {"source": SOURCE, "method": self.method, "note": note, **self.values[kind]}


def published(dataset: str, loss: str, dimensions: int) -> tuple[str, dict[str, float]] | None:
    """Looks up the results of a method on a data set.

    Args:
        dataset: name of the data set, as in `--dataset`.
        loss: path of losses, as in `--loss`.
        dimensions: 128 for a single model, 512 for four concatenated ones.

    Returns:
        The paper's name of the method, and its P@1, P@R and MAP@R in [0, 1]; None if there is no such row.
    """
    *wrappers, base = loss.split("/")
    if base not in _LOSSES or len(wrappers) > 1 or not set(wrappers) <= set(_WRAPPERS):
        return None
    method = "-".join([_LOSSES[base], *(_WRAPPERS[wrapper] for wrapper in wrappers)])
    wanted = [(_DATASETS.get(dataset), f"{method}{size}", str(dimensions)) for size in _SIZES]
    with _FILE.open(newline="", encoding="utf-8") as file:
        for row in csv.DictReader(file):
            if (row["dataset"], row["method"], row["dims"]) in wanted:
                values = {name: round(float(row[heading]) / 100, 6) for heading, name in _METRICS.items()}
                return row["method"], values
    return None
