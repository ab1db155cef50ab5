"""Makes the tables of docs/results.md on the methods, with the paper's order beside ours.

python -m studies.methods.report
"""

from __future__ import annotations

import json
import statistics
from collections.abc import Iterator, Mapping

from benchmarks.common.results import with_section
from ccp_dml.evaluation.paper import published
from configs.generate import METHODS
from studies.methods.run import RESULTS
from studies.training_runs import COLUMNS, DOCS, Measurements, of_name, spread

_PAPER_SETS = {"cub": "CUB", "cars196": "Cars196", "inshop": "In-shop", "sop": "SOP"}
_PAPER_DIMENSIONS = 128
# Comparisons of the paper: a wrapper against its base loss, and CCP against XBM.
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


def main() -> None:
    measurements = json.loads(RESULTS.read_text(encoding="utf-8"))
    file = DOCS / "results.md"
    text = file.read_text(encoding="utf-8")
    for name, lines in sections(measurements).items():
        text = with_section(text, name, "studies.methods", lines)
    file.write_text(text, encoding="utf-8")


def sections(measurements: Measurements) -> dict[str, Iterator[str]]:
    """The generated sections of the document by name."""
    return {"methods": _methods(measurements), "comparisons": _comparisons(measurements)}


def _methods(measurements: Measurements) -> Iterator[str]:
    rank_here = _ranks({method: _mean(measurements, method) for method in METHODS})
    in_paper = {name: _ranks(_paper(name)) for name in _PAPER_SETS}
    sets = " | ".join(_PAPER_SETS.values())
    scores = " | ".join(COLUMNS.values())
    yield f"| rank | method | seeds | {scores} | steps of the best epoch | rank in the paper: {sets} |"
    yield "|" + "---|" * (4 + len(COLUMNS) + len(_PAPER_SETS))
    for method in sorted(METHODS, key=rank_here.__getitem__):
        runs = of_name(measurements, method)
        cells = [str(rank_here[method]), METHODS[method].name, str(len(runs))]
        cells += [spread([run["test"][column] for run in runs]) for column in COLUMNS]
        cells.append(spread([(run["best_epoch"] + 1) * run["steps_per_epoch"] for run in runs], digits=0))
        cells += [str(in_paper[name][method]) for name in _PAPER_SETS]
        yield "| " + " | ".join(cells) + " |"
    frozen = next(iter(measurements.values()))["frozen"]
    scores = " | ".join(f"{frozen[column]:.1f}" for column in COLUMNS)
    yield f"| | frozen features | | {scores} |" + " |" * (1 + len(_PAPER_SETS))


def _comparisons(measurements: Measurements) -> Iterator[str]:
    paper = {name: _paper(name) for name in _PAPER_SETS}
    yield "| MAP@R | emoji | same sign for | in the paper: " + " | ".join(_PAPER_SETS.values()) + " |"
    yield "|---|---|---|" + "---|" * len(_PAPER_SETS)
    for one, other in _COMPARISONS:
        gains = _gains(measurements, one, other)
        mean = statistics.mean(gains)
        agreeing = sum(gain * mean > 0 for gain in gains)
        cells = [f"{METHODS[one].name} less {METHODS[other].name}", _signed(gains)]
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


def _paper(dataset: str) -> dict[str, float]:
    """MAP@R of single models in the paper, in percent."""
    rows = {name: published(dataset, method.loss, _PAPER_DIMENSIONS) for name, method in METHODS.items()}
    return {method: 100 * row[1]["map_at_r"] for method, row in rows.items() if row is not None}


def _ranks(scores: Mapping[str, float]) -> dict[str, int]:
    ordered = sorted(scores, key=scores.__getitem__, reverse=True)
    return {method: place for place, method in enumerate(ordered, start=1)}


if __name__ == "__main__":
    main()
