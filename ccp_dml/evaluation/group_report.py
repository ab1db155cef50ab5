"""The report on a group of runs: statistics over folds and repeats. Imports no TensorFlow."""

from __future__ import annotations

import csv
import io
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy import stats

from ccp_dml.evaluation.inputs import Floats
from ccp_dml.evaluation.paper import PaperResults
from ccp_dml.evaluation.report import flatten, format_table

Means = dict[str, Any]

_CONFIDENCE = 0.95
_KINDS = {
    "separate": "separate",
    "concatenated": "concatenated",
    "concatenated_unit": "concatenated, unit",
}
_STATISTICS = {"mean": "mean", "confidence_95": "± 95 %", "best": "best", "worst": "worst"}


@dataclass(frozen=True)
class MemberScores:
    """The test scores of one run of a group, see `RetrievalResult.means`."""

    fold: int
    repeat: int
    seed: int
    test: Means


@dataclass(frozen=True)
class GroupReport:
    """The results of a group of runs.

    Attributes:
        members: the runs.
        aggregates: by kind. "separate": the mean over the folds of each repeat. With several folds also
            "concatenated" and "concatenated_unit": the embeddings of the folds of each repeat side by side,
            as the runs normalise them and at unit length.
        paper: the values of the paper to compare with; None if it has none.
    """

    members: Sequence[MemberScores]
    aggregates: Mapping[str, Aggregate]
    paper: PaperResults | None = None

    def to_dict(self) -> dict[str, Any]:
        """The report, ready for JSON; `docs/protocols.md` describes it."""
        found: dict[str, Any] = {}
        for kind, aggregate in self.aggregates.items():
            found[kind] = aggregate.to_dict()
            if self.paper is not None and kind in self.paper.values:
                found[kind]["paper"] = self.paper.to_dict(kind)
                found[kind]["difference"] = self._difference(kind)
        return found

    def table(self) -> str:
        """All results as aligned text, in percent with two decimals."""
        rows: dict[str, Mapping[str, Any]] = {
            f"fold {member.fold}, repeat {member.repeat}": member.test for member in self.members
        }
        for kind, aggregate in self.aggregates.items():
            name = f"{_KINDS[kind]} {aggregate.dimensions}-d"
            statistics = aggregate.statistics
            if len(aggregate.repeats) == 1:
                rows[name] = statistics["mean"]
            else:
                rows |= {f"{name}, {label}": statistics[key] for key, label in _STATISTICS.items()}
            rows |= {f"{name}, {key}": values for key, values in self._comparison(kind).items()}
        text = format_table(rows, decimals=2)
        return text if self.paper is None else f"{text}\n{self.paper}"

    def csv(self) -> str:
        """One line per run, per repeat of an aggregate and per statistic, with values in [0, 1]."""
        lines = [
            (keys, {name: value for name, value in flatten(values).items() if isinstance(value, float)})
            for keys, values in self._csv_rows()
        ]
        metrics = list(dict.fromkeys(name for _, values in lines for name in values))
        text = io.StringIO()
        writer = csv.writer(text, lineterminator="\n")
        writer.writerow(["kind", "statistic", "fold", "repeat", *metrics])
        for keys, values in lines:
            writer.writerow([*keys, *(values.get(name, "") for name in metrics)])
        return text.getvalue()

    def _csv_rows(self) -> Iterator[tuple[tuple[Any, ...], Mapping[str, Any]]]:
        for member in self.members:
            yield ("run", "value", member.fold, member.repeat), member.test
        for kind, aggregate in self.aggregates.items():
            for number, repeat in enumerate(aggregate.repeats, start=1):
                yield (kind, "value", "", number), repeat
            for statistic, values in {**aggregate.statistics, **self._comparison(kind)}.items():
                yield (kind, statistic, "", ""), values

    def _comparison(self, kind: str) -> dict[str, Mapping[str, Any]]:
        """The values of the paper and our difference from them, where it has some."""
        if self.paper is None or kind not in self.paper.values:
            return {}
        return {"paper": self.paper.values[kind], "difference": self._difference(kind)}

    def _difference(self, kind: str) -> Means:
        """Our mean minus the value of the paper, for the metrics that it has."""
        assert self.paper is not None
        mean = self.aggregates[kind].statistics["mean"]
        return {name: mean[name] - value for name, value in self.paper.values[kind].items()}


@dataclass(frozen=True)
class Aggregate:
    """The scores of independent repeats of one experiment.

    Attributes:
        dimensions: D of the embeddings.
        repeats: the metrics of each repeat, see `RetrievalResult.means`, without counts.
    """

    dimensions: int
    repeats: tuple[Means, ...]

    @property
    def statistics(self) -> dict[str, Means]:
        """Mean, best and worst of every metric; with several repeats also `confidence_95`.

        `confidence_95` is half the width of the 95 % confidence interval of the mean.
        """
        found = {
            "mean": mean(self.repeats),
            "best": _combine(self.repeats, np.max),
            "worst": _combine(self.repeats, np.min),
        }
        if len(self.repeats) > 1:
            found["confidence_95"] = _combine(self.repeats, half_width)
        return found

    def to_dict(self) -> dict[str, Any]:
        """The aggregate, ready for JSON."""
        return {"dimensions": self.dimensions, "repeats": list(self.repeats), **self.statistics}


def mean(results: Sequence[Mapping[str, Any]]) -> Means:
    """Averages every metric over some results.

    Args:
        results: at least one; means with the same keys, see `RetrievalResult.means`.

    Returns:
        The averages, those by k included, without the counts.
    """
    return _combine(results, np.mean)


def half_width(values: Floats) -> float:
    """Half the width of the 95 % confidence interval of the mean of independent, normal values.

    `t · s / √n`, where t is the 97.5 % quantile of Student's distribution with n - 1 degrees of freedom and s
    the standard deviation of the sample (divisor n - 1).

    Args:
        values: float [n], n >= 2.
    """
    quantile = float(stats.t.ppf((1 + _CONFIDENCE) / 2, len(values) - 1))
    return float(quantile * np.std(values, ddof=1) / np.sqrt(len(values)))


def _combine(results: Sequence[Mapping[str, Any]], function: Callable[[Floats], float]) -> Means:
    combined: Means = {}
    for name, value in results[0].items():
        if isinstance(value, Mapping):
            combined[name] = _combine([result[name] for result in results], function)
        elif isinstance(value, float):
            combined[name] = float(function(np.array([result[name] for result in results], np.float64)))
    return combined
