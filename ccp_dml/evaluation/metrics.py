"""Retrieval metrics from one exact search: P@1, P@R, MAP@R, and R@k, P@k, MAP@k.

`docs/metrics.md` has the formulas and their sources, and compares the names with those of other libraries.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from ccp_dml.evaluation.blocks import DEFAULT_MEMORY_BYTES
from ccp_dml.evaluation.inputs import ClassMembers, Floats, Ints, RetrievalProblem, as_cutoffs
from ccp_dml.evaluation.options import EvaluationOptions
from ccp_dml.evaluation.report import flatten
from ccp_dml.evaluation.search import Search

RECALL_AT = EvaluationOptions.recall_at
# Up to this depth, searching costs less than counting the rank of the nearest positive.
_SHALLOW = 16
_PLAIN = ("precision_at_1", "r_precision", "map_at_r", "recall_at_r")
_BY_K = ("recall_at_k", "precision_at_k", "map_at_k")


@dataclass(frozen=True)
class RetrievalResult:
    """The metrics of every query.

    All values lie in [0, 1], float64 [Q]. They are NaN for a query without a positive in the gallery, which
    the means skip.

    Attributes:
        num_positives: R, gallery rows of the query's class without the query itself, int64 [Q].
        precision_at_1: 1 if the nearest neighbour is a positive (P@1 = R@1), else 0.
        r_precision: share of positives among the first R neighbours (P@R).
        map_at_r: mean over the first R places of the precision at places with a positive, else 0 (MAP@R).
        recall_at_r: 1 if a positive is among the first R neighbours, else 0.
        recall_at_k: by k, 1 if a positive is among the first k neighbours (R@k), else 0.
        precision_at_k: by k, share of positives among the first k neighbours (P@k).
        map_at_k: by k, as MAP@R over the first k places, divided by min(R, k) (MAP@k).

    Example:
        >>> result = evaluate_retrieval(np.array([[0.0], [1.0], [5.0], [1.5]]), np.array([0, 0, 1, 1]))
        >>> result.map_at_r.tolist()
        [1.0, 0.0, 1.0, 0.0]
        >>> np.flatnonzero(result.precision_at_1 == 0).tolist()  # The queries that fail.
        [1, 3]
    """

    num_positives: Ints
    precision_at_1: Floats
    r_precision: Floats
    map_at_r: Floats
    recall_at_r: Floats
    recall_at_k: Mapping[int, Floats] = field(default_factory=dict)
    precision_at_k: Mapping[int, Floats] = field(default_factory=dict)
    map_at_k: Mapping[int, Floats] = field(default_factory=dict)

    def means(self) -> dict[str, Any]:
        """Means over the queries that have positives, and counts, ready for JSON.

        The keys in `recall_at_k`, `precision_at_k` and `map_at_k` are strings; the last two may be empty.
        """
        has_positives = self.num_positives > 0

        def mean(values: Floats) -> float:
            return float(values[has_positives].mean())

        return {
            **{name: mean(getattr(self, name)) for name in _PLAIN},
            **{name: {str(k): mean(v) for k, v in getattr(self, name).items()} for name in _BY_K},
            "num_queries": len(self.num_positives),
            "num_queries_without_positives": int(np.sum(~has_positives)),
        }

    def scalars(self) -> dict[str, float]:
        """The means without the counts by flat names such as `recall_at_4`, for logs."""
        return {name: value for name, value in flatten(self.means()).items() if isinstance(value, float)}

    def columns(self) -> Floats:
        """All values as columns, float64 [Q, m], to be exchanged and read by `with_columns`."""
        plain = [getattr(self, name) for name in _PLAIN]
        by_k = [values for name in _BY_K for values in getattr(self, name).values()]
        return np.stack([self.num_positives.astype(np.float64), *plain, *by_k], axis=1)

    def with_columns(self, columns: Floats) -> RetrievalResult:
        """The result, by the same metrics, whose `columns` are given."""
        values = iter(columns[:, 1:].T)
        plain = {name: next(values) for name in _PLAIN}
        by_k: dict[str, Any] = {name: {k: next(values) for k in getattr(self, name)} for name in _BY_K}
        return replace(self, num_positives=columns[:, 0].astype(np.int64), **plain, **by_k)


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
    subset: slice | None = None,
) -> RetrievalResult:
    """Ranks the gallery for every query by Euclidean distance and measures the rankings.

    Embeddings are compared as they are; normalise them before. Equal distances rank by gallery index.

    Args:
        queries: float [Q, D].
        query_labels: int [Q] (or [Q, 1]).
        query_ids: int [Q]; needed with `gallery_ids`, and ignored without a gallery.
        gallery: float [G, D]; None: self-retrieval, each query ranks all other queries.
        gallery_labels: int [G], with `gallery`.
        gallery_ids: int [G], unique; the gallery row with the id of the query is left out of its ranking.
            None (and no `query_ids`): queries and gallery have no image in common.
        recall_at: the k of R@k; a k beyond the largest R costs one more pass for the queries that need it.
        precision_at: the k of P@k.
        map_at: the k of MAP@k.
        memory_bytes: bound on the working memory of the search.
        subset: the queries to search for, which may be none; None: all.

    Returns:
        The metrics of every query in `subset`.

    Raises:
        ValueError: on ill-shaped input or a k below 1.
        UnscorableError: on non-finite input, or if no query has a positive.

    Example:
        >>> embeddings, labels = np.array([[0.0], [1.0], [5.0], [6.0]]), np.array([0, 0, 1, 1])
        >>> evaluate_retrieval(embeddings, labels).means()["map_at_r"]
        1.0
    """
    problem = RetrievalProblem.of(queries, query_labels, query_ids, gallery, gallery_labels, gallery_ids)
    cutoffs = _Cutoffs(
        as_cutoffs(recall_at, "recall_at"),
        as_cutoffs(precision_at, "precision_at"),
        as_cutoffs(map_at, "map_at"),
    )
    return _measure(problem, cutoffs, memory_bytes, subset or slice(None))


@dataclass(frozen=True)
class _Cutoffs:
    """The k of each metric, ascending."""

    recall: tuple[int, ...]
    precision: tuple[int, ...]
    map: tuple[int, ...]


def _measure(
    problem: RetrievalProblem, cutoffs: _Cutoffs, memory_bytes: int, subset: slice
) -> RetrievalResult:
    """Searches block by block; positives beyond the depth of the search are ranked by counting."""
    members = ClassMembers(problem.gallery_labels)
    # Of all queries: an error must not depend on the subset.
    num_positives = problem.count_positives(members)[subset]
    queries, labels = problem.queries[subset], problem.query_labels[subset]
    self_rows = problem.self_rows[subset]
    columns = _Columns(num_positives, cutoffs)
    if not len(queries):
        return columns.result()
    shallow = [k for k in cutoffs.recall if k <= _SHALLOW]
    depth = max(int(num_positives.max()), *cutoffs.precision, *cutoffs.map, *shallow, 1)
    is_deeper = max(cutoffs.recall, default=0) > depth

    def positives(rows: Ints) -> Ints:
        return members.lists(labels[rows], self_rows[rows])

    search = Search(queries, problem.gallery, self_rows, memory_bytes)
    for found in search.neighbors(depth):
        rows = found.queries
        is_same = problem.gallery_labels[found.indices] == labels[rows, np.newaxis]
        columns.write(rows, is_same & (found.indices >= 0))
        missed = np.flatnonzero(columns.is_missed(rows))
        if missed.size and is_deeper and found.rank_bounds is not None:
            beyond = rows[missed]
            bounds = found.rank_bounds(missed, positives(beyond), depth, cutoffs.recall)
            columns.settle(beyond, *bounds)
        del found  # Frees its scores before those of the next block are made.
    beyond = np.flatnonzero(columns.is_missed(np.arange(len(queries))))
    if beyond.size and is_deeper:
        columns.first_hit[beyond] = search.nearest_member_ranks(beyond, positives(beyond))
    return columns.result()


class _Columns:
    """Values of all queries, filled block by block.

    Attributes:
        first_hit: rank of the nearest positive, from 1, or one beyond R on the same side of every k; 0 if it
            is not known yet. int64 [Q].
    """

    def __init__(self, num_positives: Ints, cutoffs: _Cutoffs) -> None:
        size = len(num_positives)
        self._num_positives, self._cutoffs = num_positives, cutoffs
        self.first_hit = np.zeros(size, np.int64)
        self._precision = {k: np.empty(size) for k in cutoffs.precision}
        self._map = {k: np.empty(size) for k in cutoffs.map}
        self._r_precision, self._map_at_r = np.empty(size), np.empty(size)

    def write(self, rows: Ints, is_positive: npt.NDArray[np.bool_]) -> None:
        """Fills some rows, given for each neighbour in order of rank if it is a positive: bool [n, depth]."""
        depth = is_positive.shape[1]
        hits = np.cumsum(is_positive, axis=1)
        # Sums over the first places of the precision at places with a positive.
        gains = np.cumsum(is_positive * hits / np.arange(1, depth + 1), axis=1)
        positives = np.maximum(self._num_positives[rows], 1)
        last = positives[:, np.newaxis] - 1
        self._r_precision[rows] = np.take_along_axis(hits, last, 1)[:, 0] / positives
        self._map_at_r[rows] = np.take_along_axis(gains, last, 1)[:, 0] / positives
        for k, values in self._precision.items():
            values[rows] = hits[:, min(k, depth) - 1] / k
        for k, values in self._map.items():
            values[rows] = gains[:, min(k, depth) - 1] / np.minimum(positives, k)
        self.first_hit[rows] = np.where(hits[:, -1] > 0, np.argmax(is_positive, axis=1) + 1, 0)

    def is_missed(self, rows: Ints) -> npt.NDArray[np.bool_]:
        """True for each row whose positives all lie deeper than the search."""
        return (self.first_hit[rows] == 0) & (self._num_positives[rows] > 0)

    def settle(self, rows: Ints, least: Ints, largest: Ints) -> None:
        """Accepts ranks whose bounds, by row, lie on the same side of each k of R@k."""
        least_side, largest_side = (
            np.searchsorted(self._cutoffs.recall, bound) for bound in (least, largest)
        )
        is_known = least_side == largest_side
        self.first_hit[rows[is_known]] = largest[is_known]

    def result(self) -> RetrievalResult:
        """The finished columns, NaN for queries without a positive."""

        def counted(values: npt.NDArray[Any]) -> Floats:
            return np.where(self._num_positives > 0, values, np.nan)

        def within(k: int | Ints) -> Floats:
            return counted((self.first_hit > 0) & (self.first_hit <= k))

        return RetrievalResult(
            num_positives=self._num_positives,
            precision_at_1=within(1),
            r_precision=counted(self._r_precision),
            map_at_r=counted(self._map_at_r),
            recall_at_r=within(self._num_positives),
            recall_at_k={k: within(k) for k in self._cutoffs.recall},
            precision_at_k={k: counted(values) for k, values in self._precision.items()},
            map_at_k={k: counted(values) for k, values in self._map.items()},
        )
