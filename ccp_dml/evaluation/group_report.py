"""The report on a group of runs (folds, repeats): dictionary, table, CSV. Imports no TensorFlow."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from ccp_dml.evaluation.aggregate import Aggregate, Means, combine
from ccp_dml.evaluation.paper import SOURCE
from ccp_dml.evaluation.report import format_table

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
