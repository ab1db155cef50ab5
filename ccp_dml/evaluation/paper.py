"""The results that the paper reports, to stand beside those of a run. Imports no TensorFlow.

Source: tables 1 and 2 of the supplement of Deep Metric Learning with Chance Constraints, arXiv 2209.09060:
four class folds, BN-Inception; 128-d is the mean of the four models, 512-d their concatenated embeddings.
"""

from __future__ import annotations

import csv
from pathlib import Path

from ccp_dml.evaluation.aggregate import Means

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
# Of the sizes of memories and proxy sets that the paper tried, its tables hold one per method and data set.
_SIZES = ("", "-S", "-L")


def published(dataset: str, loss: str, dimensions: int) -> tuple[str, Means] | None:
    """What the paper reports for a method on a data set.

    Args:
        dataset: name of the data set, as of `--dataset`.
        loss: path of losses, as of `--loss`.
        dimensions: 128 for a single model, 512 for four concatenated ones.

    Returns:
        The paper's name of the method, and its P@1, P@R and MAP@R as shares in [0, 1]; None if there is no
        such row.
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
