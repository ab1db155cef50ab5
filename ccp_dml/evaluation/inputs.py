"""Checked inputs of searches and metrics: embeddings, labels, ids and cut-offs. Imports no TensorFlow."""

from __future__ import annotations

import operator
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.floating[Any]]
Ints = npt.NDArray[np.integer[Any]]

_LARGEST_FLOAT32 = float(np.finfo(np.float32).max)


class UnscorableError(ValueError):
    """The data or the model cannot be scored; the call itself is right."""


class NotFiniteError(UnscorableError):
    """Embeddings of a model are not finite, or too large to be compared."""


@dataclass(frozen=True)
class RetrievalProblem:
    """Queries and the gallery that is ranked for each of them.

    Attributes:
        queries: float32 or float64 [Q, D].
        query_labels: int [Q].
        gallery: float32 or float64 [G, D].
        gallery_labels: int [G].
        self_rows: int32 [Q], the gallery row that is the query itself, -1 for none.
    """

    queries: Floats
    query_labels: Ints
    gallery: Floats
    gallery_labels: Ints
    self_rows: Ints

    @classmethod
    def of(
        cls,
        queries: Floats,
        query_labels: Ints,
        query_ids: Ints | None,
        gallery: Floats | None,
        gallery_labels: Ints | None,
        gallery_ids: Ints | None,
    ) -> RetrievalProblem:
        """Checks the arguments of `evaluate_retrieval`, which describes them."""
        queries = as_embeddings(queries, "queries")
        query_labels = _as_labels(query_labels, len(queries), "query_labels")
        if gallery is None:
            if gallery_labels is not None:
                raise ValueError("gallery_labels were given without a gallery")
            self_rows = find_self_rows(len(queries), None, query_ids, gallery_ids)
            return cls(queries, query_labels, queries, query_labels, self_rows)
        self_rows = find_self_rows(len(queries), len(gallery), query_ids, gallery_ids)
        gallery = as_embeddings(gallery, "gallery")
        if gallery.shape[1] != queries.shape[1]:
            raise ValueError(f"queries have {queries.shape[1]} dimensions, the gallery {gallery.shape[1]}")
        if gallery_labels is None:
            raise ValueError("a gallery needs gallery_labels")
        gallery_labels = _as_labels(gallery_labels, len(gallery), "gallery_labels")
        query_labels, gallery_labels = comparable(query_labels, gallery_labels)
        return cls(queries, query_labels, gallery, gallery_labels, self_rows)

    def count_positives(self, members: ClassMembers) -> Ints:
        """R of every query, int64 [Q].

        Raises:
            UnscorableError: if no query has a positive.
        """
        counts_itself = (self.self_rows >= 0) & (self.gallery_labels[self.self_rows] == self.query_labels)
        num_positives = members.count(self.query_labels) - counts_itself
        if not num_positives.any():
            raise UnscorableError(
                f"none of the {len(self.queries)} queries has another image of its class in the gallery"
            )
        return num_positives


class ClassMembers:
    """Gallery rows by class."""

    def __init__(self, labels: Ints) -> None:
        """Sorts the rows by their labels, int [G]."""
        self._rows = np.argsort(labels, kind="stable").astype(np.int32)
        self._classes, self._starts, self._counts = np.unique(
            labels[self._rows], return_index=True, return_counts=True
        )

    def count(self, labels: Ints) -> Ints:
        """Number of gallery rows of each label, int64 [Q]."""
        place, is_known = self._places(labels)
        return np.where(is_known, self._counts[place], 0)

    def lists(self, labels: Ints, self_rows: Ints) -> Ints:
        """Gallery rows of each label without the query's own, ascending, int32 [Q, M], padded with -1."""
        place, is_known = self._places(labels)
        counts = np.where(is_known, self._counts[place], 0)
        offsets = np.arange(counts.max())
        is_inside = offsets < counts[:, np.newaxis]
        rows = self._rows[np.where(is_inside, self._starts[place, np.newaxis] + offsets, 0)]
        return np.where(is_inside & (rows != self_rows[:, np.newaxis]), rows, -1).astype(np.int32)

    def _places(self, labels: Ints) -> tuple[Ints, npt.NDArray[np.bool_]]:
        place = np.minimum(np.searchsorted(self._classes, labels), len(self._classes) - 1)
        return place, self._classes[place] == labels


def as_embeddings(array: Floats, name: str) -> Floats:
    """Checks embeddings and returns them as contiguous float32 or float64 [N, D].

    Float64 stays as it is, so that rows which differ in float64 alone are told apart.

    Raises:
        ValueError: if they are no matrix, or empty.
        NotFiniteError: if a value is not finite, or beyond the range of float32.
    """
    array = np.asarray(array)
    array = np.ascontiguousarray(array, array.dtype if array.dtype == np.float64 else np.float32)
    if array.ndim != 2 or 0 in array.shape:
        raise ValueError(f"{name} must be a non-empty matrix [N, D], got shape {array.shape}")
    largest = np.maximum(array.max(axis=1), -array.min(axis=1))
    wrong = np.flatnonzero(~(largest <= _LARGEST_FLOAT32))
    if wrong.size:
        raise NotFiniteError(
            f"{name}: {wrong.size} of {len(array)} rows are not finite or too large, first row {wrong[0]}"
        )
    return array


def find_self_rows(
    num_queries: int, num_gallery: int | None, query_ids: Ints | None, gallery_ids: Ints | None
) -> Ints:
    """Finds the gallery row of each query itself by its id, int32 [Q], -1 where there is none.

    Args:
        num_queries: Q.
        num_gallery: G; None: the queries are the gallery.
        query_ids: int [Q], with `gallery_ids`.
        gallery_ids: int [G], unique; None: queries and gallery have nothing in common.

    Raises:
        ValueError: if the ids do not match the numbers, or are not unique.
    """
    if num_gallery is None:
        if gallery_ids is not None:
            raise ValueError("gallery_ids were given without a gallery")
        return np.arange(num_queries, dtype=np.int32)
    if (query_ids is None) != (gallery_ids is None):
        raise ValueError("query_ids and gallery_ids must be given together")
    if query_ids is None or gallery_ids is None:
        return np.full(num_queries, -1, np.int32)
    if (sizes := (len(query_ids), len(gallery_ids))) != (num_queries, num_gallery):
        raise ValueError(
            f"expected {num_queries} query_ids and {num_gallery} gallery_ids, got {sizes[0]} and {sizes[1]}"
        )
    query_ids, gallery_ids = comparable(
        _as_labels(query_ids, num_queries, "query_ids"), _as_labels(gallery_ids, num_gallery, "gallery_ids")
    )
    order = np.argsort(gallery_ids, kind="stable")
    ordered = gallery_ids[order]
    repeated = np.flatnonzero(ordered[1:] == ordered[:-1])
    if repeated.size:
        raise ValueError(f"gallery_ids must be unique, id {ordered[repeated[0]]} occurs more than once")
    place = np.minimum(np.searchsorted(ordered, query_ids), num_gallery - 1)
    return np.where(ordered[place] == query_ids, order[place], -1).astype(np.int32)


def comparable(first: Ints, second: Ints) -> tuple[Ints, Ints]:
    """Returns integers so that equal ones compare as equal, whatever their types.

    NumPy compares int64 with uint64 in float64, which has no room for large numbers.
    """
    if np.result_type(first, second).kind in "biu":
        return first, second
    both = np.concatenate([first.astype(object), second.astype(object)])
    numbers = np.unique(both, return_inverse=True)[1]
    return numbers[: len(first)], numbers[len(first) :]


def as_whole_number(value: int, name: str) -> int:
    """Returns a whole number of at least 1.

    Raises:
        ValueError: for any other value, of any type.
    """
    try:
        number = operator.index(value)
    except TypeError:
        number = 0
    if number < 1:
        raise ValueError(f"{name} is {value!r}; expected a whole number of at least 1")
    return number


def as_cutoffs(values: Iterable[int], name: str) -> tuple[int, ...]:
    """Checks a list of k and returns it in ascending order, without repetitions."""
    return tuple(sorted({as_whole_number(k, name) for k in values}))


def _as_labels(labels: Ints, size: int, name: str) -> Ints:
    labels = np.asarray(labels)
    if labels.ndim == 2 and labels.shape[1] == 1:
        labels = labels[:, 0]
    if labels.shape != (size,):
        raise ValueError(f"{name} must have shape ({size},), one per embedding, got {labels.shape}")
    if labels.dtype.kind not in "biu":
        raise ValueError(f"{name} are {labels.dtype}; expected integers")
    return labels
