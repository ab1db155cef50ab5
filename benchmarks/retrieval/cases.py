"""Made-up data sets of embeddings, for the retrieval benchmark."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np


@dataclass(frozen=True)
class Case:
    """The sizes of a data set.

    Attributes:
        title: the sizes in words.
        gallery: number of gallery rows.
        queries: number of queries; 0: every gallery row is searched for among the others.
        dimension: embedding size.
        class_sizes: smallest and largest number of images of a class, drawn uniformly.
    """

    title: str
    gallery: int
    queries: int = 0
    dimension: int = 128
    class_sizes: tuple[int, int] = (2, 9)


CASES = {
    "20k": Case("20k × 20k, D = 128", 20_000),
    "sop": Case("62k × 62k, D = 128", 62_000),
    "sop512": Case("62k × 62k, D = 512", 62_000, dimension=512),
    "cub": Case("6k × 6k, R up to 60, D = 512", 5_924, dimension=512, class_sizes=(57, 61)),
    "inshop": Case("14k queries × 13k, D = 512", 12_612, queries=14_218, dimension=512, class_sizes=(2, 11)),
    "million": Case("10k queries × 1M, D = 128", 1_000_000, queries=10_000),
}


@dataclass(frozen=True)
class Problem:
    """Embeddings float32 [N, D] and labels int64 [N]; `queries` is `gallery` itself in self-retrieval."""

    queries: np.ndarray
    query_labels: np.ndarray
    gallery: np.ndarray
    gallery_labels: np.ndarray

    @property
    def is_self_retrieval(self) -> bool:
        """True if the queries are the gallery."""
        return self.queries is self.gallery

    def num_positives(self) -> np.ndarray:
        """R of every query, int64 [Q]."""
        size = 1 + max(self.query_labels.max(), self.gallery_labels.max())
        return np.bincount(self.gallery_labels, minlength=size)[self.query_labels] - self.is_self_retrieval


def make(case: Case) -> tuple[np.ndarray, np.ndarray]:
    """Embeddings and labels of all images, queries first: unit vectors that lie nearer to their class."""
    generator = np.random.default_rng(0)
    images = case.queries + case.gallery
    smallest, largest = case.class_sizes
    sizes = generator.integers(smallest, largest + 1, size=-(-images // smallest))
    labels = np.repeat(np.arange(len(sizes)), sizes)[:images]
    labels = labels[generator.permutation(images)]
    centres = generator.standard_normal((labels.max() + 1, case.dimension), dtype=np.float32)
    embeddings = generator.standard_normal((images, case.dimension), dtype=np.float32)
    embeddings *= 1.8
    embeddings += centres[labels]
    embeddings /= np.linalg.norm(embeddings, axis=1, keepdims=True)
    return embeddings, labels


def as_problem(case: Case, embeddings: np.ndarray, labels: np.ndarray) -> Problem:
    """The arrays of `make` as queries and gallery."""
    gallery, gallery_labels = embeddings[case.queries :], labels[case.queries :]
    if not case.queries:
        return Problem(gallery, gallery_labels, gallery, gallery_labels)
    return Problem(embeddings[: case.queries], labels[: case.queries], gallery, gallery_labels)


def read(case: Case, folder: Path) -> Problem:
    """The problem whose arrays are in a folder."""
    return as_problem(
        case, *(np.load(folder / f"{name}.npy", allow_pickle=False) for name in ("embeddings", "labels"))
    )
