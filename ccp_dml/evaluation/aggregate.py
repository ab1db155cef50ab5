"""Scores of several runs as one: mean, best, worst and a confidence interval. Imports no TensorFlow."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy import stats

from ccp_dml.evaluation.inputs import Floats

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
