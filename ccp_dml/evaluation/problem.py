"""A retrieval problem: what is ranked for which queries, and which gallery rows are right."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from ccp_dml.evaluation.inputs import Floats, Ints, UnscorableError, as_embeddings, as_labels, own_rows


@dataclass(frozen=True)
class RetrievalProblem:
    """What is ranked for what.

    Attributes:
        queries: float32 [Q, D].
        query_labels: int [Q].
        rows: float32 [G, D], the gallery.
        labels: int [G].
        own: int [Q], the gallery row that is the query itself, or -1.
    """

    queries: Floats
    query_labels: Ints
    rows: Floats
    labels: Ints
    own: Ints

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
        """Checks the arguments of `evaluate_retrieval`."""
        queries = as_embeddings(queries, "queries")
        query_labels = as_labels(query_labels, len(queries), "query_labels")
        size = len(queries if gallery is None else gallery)
        own = own_rows(len(queries), size, gallery is None, query_ids, gallery_ids)
        if gallery is None:
            if gallery_labels is not None:
                raise ValueError("gallery_labels were given without a gallery")
            return cls(queries, query_labels, queries, query_labels, own)
        rows = as_embeddings(gallery, "gallery")
        if rows.shape[1] != queries.shape[1]:
            raise ValueError(f"queries have {queries.shape[1]} dimensions, the gallery {rows.shape[1]}")
        if gallery_labels is None:
            raise ValueError("a gallery needs gallery_labels")
        return cls(queries, query_labels, rows, as_labels(gallery_labels, len(rows), "gallery_labels"), own)

    def count_positives(self, members: ClassMembers) -> Ints:
        """R of every query, int64 [Q].

        Raises:
            UnscorableError: if no query has a positive.
        """
        own_counts = (self.own >= 0) & (self.labels[self.own] == self.query_labels)
        num_positives = members.count(self.query_labels) - own_counts
        if not num_positives.any():
            raise UnscorableError(
                f"none of the {len(self.queries)} queries has another image of its class in the gallery"
            )
        return num_positives


class ClassMembers:
    """Gallery rows by class."""

    def __init__(self, labels: Ints):
        self._rows = np.argsort(labels, kind="stable").astype(np.int32)
        self._classes, self._starts, self._counts = np.unique(
            labels[self._rows], return_index=True, return_counts=True
        )

    def count(self, labels: Ints) -> Ints:
        """Gallery rows of each label, int64 [Q]."""
        place, known = self._places(labels)
        return np.where(known, self._counts[place], 0)

    def lists(self, labels: Ints, own: Ints) -> Ints:
        """Gallery rows of each label without `own`, ascending, int32 [Q, M], padded with -1."""
        place, known = self._places(labels)
        counts = np.where(known, self._counts[place], 0)
        offsets = np.arange(counts.max())
        inside = offsets < counts[:, np.newaxis]
        rows = self._rows[np.where(inside, self._starts[place, np.newaxis] + offsets, 0)]
        return np.where(inside & (rows != own[:, np.newaxis]), rows, -1).astype(np.int32)

    def _places(self, labels: Ints) -> tuple[Ints, npt.NDArray[np.bool_]]:
        place = np.minimum(np.searchsorted(self._classes, labels), len(self._classes) - 1)
        return place, self._classes[place] == labels
