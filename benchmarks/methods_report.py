"""Tables of the study of methods, from its file of measurements, with the paper's order beside ours."""

from __future__ import annotations

import statistics
from collections.abc import Iterator, Mapping
from pathlib import Path

from benchmarks.training_runs import COLUMNS, Measurements, of_name, spread, write_parts
from ccp_dml.evaluation.paper import published

_PAPER_SETS = {"cub": "CUB", "cars196": "Cars196", "inshop": "In-shop", "sop": "SOP"}
_PAPER_DIMENSIONS = 128
# Comparisons that the paper makes: what a wrapper adds to its base loss, and CCP against XBM.
_COMPARISONS = (
    ("c1_xbm", "c1"),
    ("c1_ccp", "c1"),
    ("c1_ccp", "c1_xbm"),
    ("c2_xbm", "c2"),
    ("c2_ccp", "c2"),
    ("c2_ccp", "c2_xbm"),
    ("ms_ccp", "ms"),
    ("triplet_ccp", "triplet"),
)


def write(measurements: Measurements, methods: Mapping[str, tuple[str, str]], docs: Path) -> None:
    """Replaces the generated parts of docs/results.md.

    Args:
        measurements: of all runs.
        methods: for each method its name in the paper and the path of its loss.
        docs: folder of the documents.
    """
    parts = {
        "methods": _methods(measurements, methods),
        "comparisons": _comparisons(measurements, methods),
    }
    write_parts(docs / "results.md", "benchmarks.methods", parts)


def _methods(measurements: Measurements, methods: Mapping[str, tuple[str, str]]) -> Iterator[str]:
    rank_here = _ranks({method: _mean(measurements, method) for method in methods})
    in_paper = {name: _ranks(_paper(methods, name)) for name in _PAPER_SETS}
    sets = " | ".join(_PAPER_SETS.values())
    scores = " | ".join(COLUMNS.values())
    yield f"| rank | method | seeds | {scores} | steps of the best epoch | rank in the paper: {sets} |"
    yield "|" + "---|" * (4 + len(COLUMNS) + len(_PAPER_SETS))
    for method in sorted(methods, key=rank_here.__getitem__):
        runs = of_name(measurements, method)
        cells = [str(rank_here[method]), methods[method][0], str(len(runs))]
        cells += [spread([run["test"][column] for run in runs]) for column in COLUMNS]
        cells.append(spread([(run["best_epoch"] + 1) * run["steps_per_epoch"] for run in runs], digits=0))
        cells += [str(in_paper[name][method]) for name in _PAPER_SETS]
        yield "| " + " | ".join(cells) + " |"
    frozen = next(iter(measurements.values()))["frozen"]
    scores = " | ".join(f"{frozen[column]:.1f}" for column in COLUMNS)
    yield f"| | frozen features | | {scores} |" + " |" * (1 + len(_PAPER_SETS))


def _comparisons(measurements: Measurements, methods: Mapping[str, tuple[str, str]]) -> Iterator[str]:
    paper = {name: _paper(methods, name) for name in _PAPER_SETS}
    yield "| MAP@R | emoji | same sign for | in the paper: " + " | ".join(_PAPER_SETS.values()) + " |"
    yield "|---|---|---|" + "---|" * len(_PAPER_SETS)
    for one, other in _COMPARISONS:
        gains = _gains(measurements, one, other)
        mean = statistics.mean(gains)
        agreeing = sum(gain * mean > 0 for gain in gains)
        cells = [f"{methods[one][0]} less {methods[other][0]}", _signed(gains)]
        cells += [f"{agreeing} of {len(gains)} seeds"]
        cells += [f"{paper[name][one] - paper[name][other]:+.1f}" for name in _PAPER_SETS]
        yield "| " + " | ".join(cells) + " |"


def _gains(measurements: Measurements, one: str, other: str) -> list[float]:
    """Differences of test MAP@R, seed by seed."""
    pairs = zip(of_name(measurements, one), of_name(measurements, other))
    return [a["test"]["map_at_r"] - b["test"]["map_at_r"] for a, b in pairs]


def _signed(values: list[float]) -> str:
    return ("" if statistics.mean(values) < 0 else "+") + spread(values)


def _mean(measurements: Measurements, method: str) -> float:
    return statistics.mean(run["test"]["map_at_r"] for run in of_name(measurements, method))


def _paper(methods: Mapping[str, tuple[str, str]], dataset: str) -> dict[str, float]:
    """MAP@R in percent that the paper reports for single models."""
    rows = {method: published(dataset, loss, _PAPER_DIMENSIONS) for method, (_, loss) in methods.items()}
    return {method: 100 * row[1]["map_at_r"] for method, row in rows.items() if row is not None}


def _ranks(scores: Mapping[str, float]) -> dict[str, int]:
    ordered = sorted(scores, key=scores.__getitem__, reverse=True)
    return {method: place for place, method in enumerate(ordered, start=1)}
