"""Retrieval metrics from one exact search: P@1, P@R, MAP@R, and R@k, P@k, MAP@k.

Formulas, sources and what like-named quantities mean elsewhere are in `docs/metrics.md`.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from ccp_dml.evaluation.blocks import DEFAULT_MEMORY_BYTES
from ccp_dml.evaluation.inputs import ClassMembers, Floats, Ints, RetrievalProblem, as_cutoffs
from ccp_dml.evaluation.search import iterate_neighbors, nearest_member_ranks

RECALL_AT = (1, 2, 4, 8)
# Searching so deep costs less than counting how deep the nearest positive lies.
_SHALLOW = 16


@dataclass(frozen=True)
class RetrievalResult:
    """Metrics of every query.

    All values lie in [0, 1], float64 [Q]; NaN for a query without a positive in the gallery; means skip it.

    Attributes:
        num_positives: R, gallery rows of the query's class without the query itself, int64 [Q].
        precision_at_1: whether the nearest neighbour is a positive (P@1 = R@1).
        r_precision: share of positives among the first R (P@R).
        map_at_r: mean over the first R places of the precision there where a positive stands, else 0 (MAP@R).
        recall_at_r: whether a positive is among the first R.
        recall_at_k: by k, whether a positive is among the first k (R@k).
        precision_at_k: by k, share of positives among the first k (P@k).
        map_at_k: by k, as MAP@R over the first k, divided by min(R, k) (MAP@k).
    """

    num_positives: Ints
    precision_at_1: Floats
    r_precision: Floats
    map_at_r: Floats
    recall_at_r: Floats
    recall_at_k: Mapping[int, Floats] = field(default_factory=dict)
    precision_at_k: Mapping[int, Floats] = field(default_factory=dict)
    map_at_k: Mapping[int, Floats] = field(default_factory=dict)

    @property
    def num_queries(self) -> int:
        """All queries, with or without positives."""
        return len(self.num_positives)

    @property
    def num_without_positives(self) -> int:
        """Queries that no mean counts."""
        return int(np.sum(self.num_positives == 0))

    def means(self) -> dict[str, Any]:
        """Means over the queries that have positives, and counts, as a dictionary ready for JSON.

        The keys of `recall_at_k`, `precision_at_k` and `map_at_k` are strings; the last two may be empty.
        """
        counted = self.num_positives > 0

        def mean(values: Floats) -> float:
            return float(values[counted].mean())

        def means(by_k: Mapping[int, Floats]) -> dict[str, float]:
            return {str(k): mean(values) for k, values in by_k.items()}

        return {
            "precision_at_1": mean(self.precision_at_1),
            "r_precision": mean(self.r_precision),
            "map_at_r": mean(self.map_at_r),
            "recall_at_r": mean(self.recall_at_r),
            "recall_at_k": means(self.recall_at_k),
            "precision_at_k": means(self.precision_at_k),
            "map_at_k": means(self.map_at_k),
            "num_queries": self.num_queries,
            "num_queries_without_positives": self.num_without_positives,
        }

    def scalars(self) -> dict[str, float]:
        """The means without counts as a flat dictionary, `recall_at_k` of 4 as `recall_at_4`: for logs."""
        flat: dict[str, float] = {}
        for name, value in self.means().items():
            if isinstance(value, dict):
                flat.update({f"{name[:-1]}{k}": mean for k, mean in value.items()})
            elif isinstance(value, float):
                flat[name] = value
        return flat

    def columns(self) -> Floats:
        """All values, float64 [Q, m]; `with_columns` gives those of other queries a meaning."""
        return np.stack([self.num_positives.astype(np.float64), *self._values()], axis=1)

    def with_columns(self, columns: Floats) -> RetrievalResult:
        """The result of other queries, by the same metrics, whose `columns` these are."""
        values = iter(columns[:, 1:].T)
        named = {name: next(values) for name in _PLAIN}
        by_k: dict[str, Any] = {name: {k: next(values) for k in getattr(self, name)} for name in _BY_K}
        return replace(self, num_positives=columns[:, 0].astype(np.int64), **named, **by_k)

    def _values(self) -> list[Floats]:
        plain = [getattr(self, name) for name in _PLAIN]
        return plain + [values for name in _BY_K for values in getattr(self, name).values()]


_PLAIN = ("precision_at_1", "r_precision", "map_at_r", "recall_at_r")
_BY_K = ("recall_at_k", "precision_at_k", "map_at_k")


def evaluate_retrieval(
    queries: Floats,
    query_labels: Ints,
    query_ids: Ints | None = None,
    gallery: Floats | None = None,
    gallery_labels: Ints | None = None,
    gallery_ids: Ints | None = None,
    *,
    recall_at: Iterable[int] = RECALL_AT,
    precision_at: Iterable[int] = (),
    map_at: Iterable[int] = (),
    memory_bytes: int = DEFAULT_MEMORY_BYTES,
    part: slice | None = None,
) -> RetrievalResult:
    """Ranks the gallery for every query by Euclidean distance and measures the rankings.

    Embeddings are taken as they are: a run's normalisation is applied before, once.
    Equal distances rank by gallery index.

    Args:
        queries: float [Q, D].
        query_labels: int [Q] (or [Q, 1]).
        query_ids: int [Q]; needed with `gallery_ids`, and without meaning without a gallery.
        gallery: float [G, D]; None: self-retrieval, each query ranks all other queries.
        gallery_labels: int [G], with `gallery`.
        gallery_ids: int [G], unique; the gallery row with the query's id is left out of its ranking.
            None (and no `query_ids`): queries and gallery have no image in common.
        recall_at: the k of R@k; a k beyond the largest R costs one more pass for the queries that need it.
        precision_at: the k of P@k.
        map_at: the k of MAP@k.
        memory_bytes: bound on the working memory of the search.
        part: only these queries are searched for, of which there may be none; None: all.

    Returns:
        The metrics of every query, of those in `part`.

    Raises:
        ValueError: on ill-shaped input or a k below 1.
        UnscorableError: on non-finite input, or if no query has a positive.
    """
    problem = RetrievalProblem.of(queries, query_labels, query_ids, gallery, gallery_labels, gallery_ids)
    cutoffs = _Cutoffs(
        as_cutoffs(recall_at, "recall_at"),
        as_cutoffs(precision_at, "precision_at"),
        as_cutoffs(map_at, "map_at"),
    )
    return _measure(problem, cutoffs, memory_bytes, slice(0, len(problem.queries)) if part is None else part)


def _measure(
    problem: RetrievalProblem, cutoffs: _Cutoffs, memory_bytes: int, chosen: slice
) -> RetrievalResult:
    """Searches block by block; what lies deeper than was searched is looked for by rank."""
    members = ClassMembers(problem.labels)
    # Of all queries, so that it does not depend on the part whether there is something to measure.
    num_positives = problem.count_positives(members)[chosen]
    queries, rows, own = problem.queries[chosen], problem.rows, problem.own[chosen]
    query_labels = problem.query_labels[chosen]
    if not len(queries):
        return _Columns(0, cutoffs).result(num_positives)
    shallow = [k for k in cutoffs.recall if k <= _SHALLOW]
    depth = max(int(num_positives.max()), *cutoffs.precision, *cutoffs.map, *shallow, 1)
    is_deeper = max(cutoffs.recall, default=0) > depth
    columns = _Columns(len(queries), cutoffs)

    def positives(of: Ints) -> Ints:
        return members.lists(query_labels[of], own[of])

    for found in iterate_neighbors(queries, rows, own, depth, memory_bytes):
        part = found.queries
        is_same = problem.labels[found.indices] == query_labels[part, np.newaxis]
        columns.write(part, is_same & (found.indices >= 0), num_positives[part])
        missed = columns.missed(part, num_positives)
        if missed.size and is_deeper and found.rank_bounds is not None:
            beyond = part[missed]
            bounds = found.rank_bounds(missed, positives(beyond), depth, cutoffs.recall)
            columns.settle(beyond, *bounds)
            del bounds
        del found  # Its scores, before those of the next block are made.
    beyond = columns.missed(np.arange(len(queries)), num_positives)
    if beyond.size and is_deeper:
        columns.first_hit[beyond] = nearest_member_ranks(
            queries[beyond], rows, own[beyond], positives(beyond), memory_bytes
        )
    return columns.result(num_positives)


@dataclass(frozen=True)
class _Cutoffs:
    """The k of each metric, ascending."""

    recall: tuple[int, ...]
    precision: tuple[int, ...]
    map: tuple[int, ...]


class _Columns:
    """Per-query values, filled block by block."""

    def __init__(self, num_queries: int, cutoffs: _Cutoffs):
        self._cutoffs = cutoffs
        # Rank of the nearest positive, from 1, or one beyond R that no k tells from it; 0: not known yet.
        self.first_hit = np.zeros(num_queries, np.int64)
        self._precision = {k: np.empty(num_queries) for k in cutoffs.precision}
        self._map = {k: np.empty(num_queries) for k in cutoffs.map}
        self._r_precision = np.empty(num_queries)
        self._map_at_r = np.empty(num_queries)

    def write(self, part: Ints, relevant: npt.NDArray[np.bool_], num_positives: Ints) -> None:
        """Fills the rows of a block from its relevance in order of rank, bool [b, depth]."""
        depth = relevant.shape[1]
        hits = np.cumsum(relevant, axis=1)
        # Sum over the first i places of the precision at the positives there.
        gains = np.cumsum(relevant * hits / np.arange(1, depth + 1), axis=1)
        positives = np.maximum(num_positives, 1)
        last = positives[:, np.newaxis] - 1
        self._r_precision[part] = np.take_along_axis(hits, last, 1)[:, 0] / positives
        self._map_at_r[part] = np.take_along_axis(gains, last, 1)[:, 0] / positives
        for k, values in self._precision.items():
            values[part] = hits[:, min(k, depth) - 1] / k
        for k, values in self._map.items():
            values[part] = gains[:, min(k, depth) - 1] / np.minimum(positives, k)
        self.first_hit[part] = np.where(hits[:, -1] > 0, np.argmax(relevant, axis=1) + 1, 0)

    def missed(self, part: Ints, num_positives: Ints) -> Ints:
        """Places in a block of the queries whose positives all lie deeper than was searched, ascending."""
        return np.flatnonzero((self.first_hit[part] == 0) & (num_positives[part] > 0))

    def settle(self, queries: Ints, least: Ints, largest: Ints) -> None:
        """Takes ranks whose bounds, by query, lie on the same side of each k."""
        side = [np.searchsorted(self._cutoffs.recall, bound) for bound in (least, largest)]
        known = side[0] == side[1]
        self.first_hit[queries[known]] = largest[known]

    def result(self, num_positives: Ints) -> RetrievalResult:
        """The finished columns, NaN where a query has no positive."""

        def counted(values: npt.NDArray[Any]) -> Floats:
            return np.where(num_positives > 0, values, np.nan)

        def within(k: int | Ints) -> Floats:
            return counted((self.first_hit > 0) & (self.first_hit <= k))

        return RetrievalResult(
            num_positives=num_positives,
            precision_at_1=within(1),
            r_precision=counted(self._r_precision),
            map_at_r=counted(self._map_at_r),
            recall_at_r=within(num_positives),
            recall_at_k={k: within(k) for k in self._cutoffs.recall},
            precision_at_k={k: counted(values) for k, values in self._precision.items()},
            map_at_k={k: counted(values) for k, values in self._map.items()},
        )
