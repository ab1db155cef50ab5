"""Results as a table for the terminal and as a dictionary for a JSON file. Imports no TensorFlow."""

from __future__ import annotations

import csv
import io
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from scipy import stats

from ccp_dml.evaluation.inputs import Floats

_COLUMNS = {"precision_at_1": "P@1", "r_precision": "P@R", "map_at_r": "MAP@R"}
_LISTS = {"recall_at_k": "R@", "precision_at_k": "P@", "map_at_k": "MAP@"}


def format_table(rows: Mapping[str, Mapping[str, Any]], decimals: int = 1) -> str:
    """Lays results out as aligned plain text, in percent.

    Args:
        rows: by name ("frozen features", "CCP"), the means of a result, as of `RetrievalResult.means()`.
        decimals: places after the point.

    Returns:
        Lines without a trailing newline; a value that a row lacks is shown as a dash. R@1 is P@1 and not
        repeated.

    Raises:
        ValueError: if there is no row.
    """
    if not rows:
        raise ValueError("a table needs at least one row")
    cells = {name: _cells(means, decimals) for name, means in rows.items()}
    headings = sorted({heading for row in cells.values() for heading in row}, key=_place)
    table = [["", *headings]]
    table += [[name, *(row.get(heading, "-") for heading in headings)] for name, row in cells.items()]
    widths = [max(len(line[column]) for line in table) for column in range(len(table[0]))]
    lines = []
    for line in table:
        first, *others = (text.rjust(width) for text, width in zip(line, widths))
        lines.append("  ".join([line[0].ljust(len(first)), *others]).rstrip())
    lines.insert(1, "-" * max(map(len, lines)))
    return "\n".join(lines + _notes(rows))


def results_dict(
    test: Mapping[str, Any],
    validation: Mapping[str, Any] | None = None,
    config: Mapping[str, Any] | None = None,
    versions: Mapping[str, str] | None = None,
    **extra: Any,
) -> dict[str, Any]:
    """The content of `results.json`.

    Args:
        test: means of the test evaluation, as of `RetrievalResult.means()`.
        validation: means of the validation that chose the weights; None: there was none.
        config: the run's flags.
        versions: package versions.
        **extra: further sections, such as a baseline.

    Returns:
        A dictionary with these keys, ready for JSON.
    """
    results: dict[str, Any] = {
        "test": dict(test),
        "validation": None if validation is None else dict(validation),
        "config": dict(config or {}),
        "versions": dict(versions or {}),
    }
    results.update(extra)
    return results


def _cells(means: Mapping[str, Any], decimals: int) -> dict[str, str]:
    cells = {heading: _percent(means[key], decimals) for key, heading in _COLUMNS.items() if key in means}
    for key, heading in _LISTS.items():
        for k, value in means.get(key, {}).items():
            if heading != "R@" or int(k) != 1:
                cells[f"{heading}{k}"] = _percent(value, decimals)
    return cells


def _place(heading: str) -> tuple[int, int]:
    """Column order: the three main metrics, then the lists, each by k."""
    main = list(_COLUMNS.values())
    if heading in main:
        return main.index(heading) - len(main), 0
    kind, k = heading.split("@")
    return list(_LISTS.values()).index(f"{kind}@"), int(k)


def _percent(value: float, decimals: int) -> str:
    return f"{100 * value:.{decimals}f}"


def _notes(rows: Mapping[str, Mapping[str, Any]]) -> list[str]:
    """One line where queries were left out, so that nobody compares means over different sets unawares."""
    return [
        f"{name}: {means['num_queries_without_positives']} of {means['num_queries']} queries have no other "
        "image of their class and are left out"
        for name, means in rows.items()
        if means.get("num_queries_without_positives")
    ]


Means = dict[str, Any]

CONFIDENCE = 0.95


def combine(rows: Sequence[Mapping[str, Any]], function: Callable[[Floats], float]) -> Means:
    """One dictionary of metrics out of several.

    Args:
        rows: at least one, all with the same keys, as of `RetrievalResult.means()`.
        function: of float64 [len(rows)], the values of one metric.

    Returns:
        The metrics as in a row, those by k included; counts are left out.

    Raises:
        ValueError: if there is no row.
    """
    if not rows:
        raise ValueError("there are no results to combine")
    combined: Means = {}
    for name, value in rows[0].items():
        if isinstance(value, Mapping):
            combined[name] = combine([row[name] for row in rows], function)
        elif isinstance(value, float):
            combined[name] = float(function(np.array([row[name] for row in rows], np.float64)))
    return combined


def mean(rows: Sequence[Mapping[str, Any]]) -> Means:
    """The mean of every metric, see `combine`."""
    return combine(rows, np.mean)


def half_width(values: Floats) -> float:
    """Half the width of the 95 % confidence interval of the mean of independent, normal values.

    `t · s / √n`, t being the 97.5 % quantile of Student's distribution with n - 1 degrees of freedom and s
    the sample's standard deviation (divisor n - 1).

    Args:
        values: float [n], n >= 2.
    """
    quantile = float(stats.t.ppf((1 + CONFIDENCE) / 2, len(values) - 1))
    return float(quantile * np.std(values, ddof=1) / np.sqrt(len(values)))


@dataclass(frozen=True)
class Aggregate:
    """The scores of independent repeats of one experiment.

    Attributes:
        dimensions: D of the embeddings that were scored.
        repeats: the metrics of each repeat, as of `RetrievalResult.means()`, counts left out.
    """

    dimensions: int
    repeats: tuple[Means, ...]

    @property
    def confidence(self) -> Means | None:
        """Half widths of the 95 % confidence intervals of the means; None of a single repeat."""
        return combine(self.repeats, half_width) if len(self.repeats) > 1 else None

    @property
    def statistics(self) -> dict[str, Means]:
        """Mean, best and worst of every metric by itself; `confidence_95` with several repeats."""
        found = {
            "mean": mean(self.repeats),
            "best": combine(self.repeats, np.max),
            "worst": combine(self.repeats, np.min),
        }
        return found if self.confidence is None else found | {"confidence_95": self.confidence}

    def to_dict(self) -> dict[str, Any]:
        """All of it, ready for JSON."""
        return {"dimensions": self.dimensions, "repeats": list(self.repeats), **self.statistics}


_LABELS = {
    "separate": "separate",
    "concatenated": "concatenated",
    "concatenated_unit": "concatenated, unit",
}
_STATISTICS = {"mean": "mean", "confidence_95": "± 95 %", "best": "best", "worst": "worst"}


@dataclass(frozen=True)
class MemberScores:
    """The test scores of one run of the group, as of `RetrievalResult.means()`."""

    fold: int
    repeat: int
    seed: int
    test: Means


@dataclass(frozen=True)
class GroupReport:
    """What a group of runs gives.

    Attributes:
        members: the runs.
        aggregates: by kind: "separate", the mean over the folds of a repeat; with several folds also
            "concatenated" and "concatenated_unit", the embeddings of the folds of a repeat side by side, as
            the runs normalise them and at unit length.
        paper: the paper's values by kind, where it has them.
        paper_method: the paper's name of the method; empty without `paper`.
        paper_note: what differs from the setting of the paper; empty if nothing does.
    """

    members: Sequence[MemberScores]
    aggregates: Mapping[str, Aggregate]
    paper: Mapping[str, Means]
    paper_method: str = ""
    paper_note: str = ""

    def to_dict(self) -> dict[str, Any]:
        """The report, ready for JSON; see docs/protocols.md."""
        found: dict[str, Any] = {}
        for kind, aggregate in self.aggregates.items():
            found[kind] = aggregate.to_dict()
            if kind in self.paper:
                found[kind]["paper"] = {
                    "source": SOURCE,
                    "method": self.paper_method,
                    "note": self.paper_note,
                    **self.paper[kind],
                }
                found[kind]["difference"] = self._difference(kind)
        return found

    def table(self) -> str:
        """All results as aligned text, in percent with two decimals."""
        rows: dict[str, Mapping[str, Any]] = {
            f"fold {member.fold}, repeat {member.repeat}": member.test for member in self.members
        }
        for kind, aggregate in self.aggregates.items():
            name = f"{_LABELS[kind]} {aggregate.dimensions}-d"
            statistics = aggregate.statistics
            if len(aggregate.repeats) == 1:
                rows[name] = statistics["mean"]
            else:
                rows |= {f"{name}, {_STATISTICS[key]}": statistics[key] for key in _STATISTICS}
            if kind in self.paper:
                rows[f"{name}, paper"] = self.paper[kind]
                rows[f"{name}, difference"] = self._difference(kind)
        text = format_table(rows, decimals=2)
        if self.paper:
            text += f"\npaper: {self.paper_method} in {SOURCE}"
            text += f"; {self.paper_note}" if self.paper_note else ""
        return text

    def csv(self) -> str:
        """One line per run, per repeat of an aggregate, and per statistic; shares in [0, 1]."""
        lines = [(keys, _flat(values)) for keys, values in self._csv_rows()]
        metrics = list(dict.fromkeys(name for _, values in lines for name in values))
        text = io.StringIO()
        writer = csv.writer(text, lineterminator="\n")
        writer.writerow(["kind", "statistic", "fold", "repeat", *metrics])
        for keys, values in lines:
            writer.writerow([*keys, *(values.get(name, "") for name in metrics)])
        return text.getvalue()

    def _difference(self, kind: str) -> Means:
        """The mean less the paper's value, of the metrics that the paper has."""
        found, published = self.aggregates[kind].statistics["mean"], self.paper[kind]
        ours = {name: found[name] for name in published}
        return combine([ours, published], lambda pair: pair[0] - pair[1])

    def _csv_rows(self) -> Iterator[tuple[tuple[Any, ...], Mapping[str, Any]]]:
        for member in self.members:
            yield ("run", "value", member.fold, member.repeat), member.test
        for kind, aggregate in self.aggregates.items():
            for number, repeat in enumerate(aggregate.repeats, start=1):
                yield (kind, "value", "", number), repeat
            for statistic, values in aggregate.statistics.items():
                yield (kind, statistic, "", ""), values
            if kind in self.paper:
                yield (kind, "paper", "", ""), self.paper[kind]
                yield (kind, "difference", "", ""), self._difference(kind)


def _flat(means: Mapping[str, Any]) -> dict[str, float]:
    """Metrics without counts; `recall_at_k` of 4 as `recall_at_4`."""
    flat: dict[str, float] = {}
    for name, value in means.items():
        if isinstance(value, Mapping):
            flat |= {f"{name.removesuffix('_k')}_{k}": item for k, item in value.items()}
        elif isinstance(value, float):
            flat[name] = value
    return flat


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
