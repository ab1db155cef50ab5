"""Checked inputs of searches and metrics: embeddings, labels, ids and cut-offs. Imports no TensorFlow."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.floating[Any]]
Ints = npt.NDArray[np.integer[Any]]

# Up to this squared norm every score is finite and above that of padding rows.
_LARGEST_SQUARED_NORM = 1e36


class UnscorableError(ValueError):
    """The data or the model cannot be scored; the call itself is right."""


class NotFiniteError(UnscorableError):
    """Embeddings of a model are not finite, or too large to be compared."""


@dataclass(frozen=True)
class RetrievalProblem:
    """Queries and the gallery that is ranked for each of them.

    Attributes:
        queries: float32 [Q, D].
        query_labels: int [Q].
        gallery: float32 [G, D].
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
    """Checks embeddings and returns them as contiguous float32 [N, D].

    Raises:
        ValueError: if they are no matrix, or empty.
        NotFiniteError: if a value is not finite or a norm too large.
    """
    array = np.ascontiguousarray(array, np.float32)
    if array.ndim != 2 or 0 in array.shape:
        raise ValueError(f"{name} must be a non-empty matrix [N, D], got shape {array.shape}")
    with np.errstate(over="ignore", invalid="ignore"):
        squared_norms = np.einsum("nd,nd->n", array, array)
    wrong = np.flatnonzero(~(squared_norms <= _LARGEST_SQUARED_NORM))
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
    query_ids, gallery_ids = np.asarray(query_ids).ravel(), np.asarray(gallery_ids).ravel()
    if len(query_ids) != num_queries or len(gallery_ids) != num_gallery:
        raise ValueError(
            f"expected {num_queries} query_ids and {num_gallery} gallery_ids, "
            f"got {len(query_ids)} and {len(gallery_ids)}"
        )
    order = np.argsort(gallery_ids, kind="stable")
    ordered = gallery_ids[order]
    repeated = np.flatnonzero(ordered[1:] == ordered[:-1])
    if repeated.size:
        raise ValueError(f"gallery_ids must be unique, id {ordered[repeated[0]]} occurs more than once")
    place = np.minimum(np.searchsorted(ordered, query_ids), num_gallery - 1)
    return np.where(ordered[place] == query_ids, order[place], -1).astype(np.int32)


def as_cutoffs(values: Iterable[int], name: str) -> tuple[int, ...]:
    """Checks a list of k and returns it in ascending order, without repetitions."""
    ks = tuple(sorted({int(k) for k in values}))
    if ks and ks[0] < 1:
        raise ValueError(f"{name} must hold numbers of at least 1, got {ks[0]}")
    return ks


def _as_labels(labels: Ints, size: int, name: str) -> Ints:
    labels = np.asarray(labels)
    if labels.ndim == 2 and labels.shape[1] == 1:
        labels = labels[:, 0]
    if labels.shape != (size,):
        raise ValueError(f"{name} must have shape ({size},), one per embedding, got {labels.shape}")
    return labels
