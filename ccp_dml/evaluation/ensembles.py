"""Embeddings of one model or of several side by side, and their reduction by a PCA."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from sklearn.decomposition import PCA

from ccp_dml.evaluation.inputs import Floats, UnscorableError
from ccp_dml.geometry.normalization import normalize


@dataclass(frozen=True)
class Embedded:
    """Normalised embeddings of the images of a task.

    Attributes:
        test: float32 [Q, D], of the test images; the queries if there is a gallery.
        gallery: float32 [G, D], or None for self-retrieval.
        training: float32 [T, D], of the training images, in an order that does not depend on the fold; None
            unless a PCA needs them.
    """

    test: Floats
    gallery: Floats | None = None
    training: Floats | None = None

    @property
    def parts(self) -> tuple[Floats | None, Floats | None, Floats | None]:
        """Test, gallery and training embeddings."""
        return self.test, self.gallery, self.training

    def projected(self, projection: Projection) -> Embedded:
        """Test and gallery embeddings after a projection."""
        gallery = None if self.gallery is None else projection(self.gallery)
        return Embedded(projection(self.test), gallery)


def concatenate(models: Sequence[Embedded], normalization: str = "none") -> Embedded:
    """Embeddings of several models side by side.

    Args:
        models: at least one; of the same images.
        normalization: applied to the embeddings of each model before: "none" leaves them as the run
            normalised them; "unit" gives every model the same weight, as in A Metric Learning Reality Check.

    Returns:
        Embeddings whose D is the sum of those of the models.
    """

    def joined(parts: Sequence[Floats | None]) -> Floats | None:
        present = [normalize(part, normalization).numpy() for part in parts if part is not None]
        return np.concatenate(present, axis=1) if present else None

    test, gallery, training = (joined(parts) for parts in zip(*(model.parts for model in models)))
    assert test is not None
    return Embedded(test, gallery, training)


@dataclass(frozen=True)
class Projection:
    """The affine map onto principal components: `(x - mean) @ components.T`.

    Attributes:
        mean: float32 [D].
        components: float32 [N, D], orthonormal rows, the largest variance first.
    """

    mean: Floats
    components: Floats

    def __call__(self, embeddings: Floats) -> Floats:
        """Maps float32 [B, D] to float32 [B, N]."""
        return (embeddings - self.mean) @ self.components.T


def fit_pca(training: Floats, dimensions: int) -> Projection:
    """The principal components of embeddings.

    Args:
        training: float32 [T, D], embeddings of training images.
        dimensions: N.

    Raises:
        UnscorableError: if N is above T or D.
    """
    most = min(training.shape)
    if dimensions > most:
        count, width = training.shape
        raise UnscorableError(
            f"a PCA of {count} training embeddings of {width} dimensions has at most {most} components, "
            f"{dimensions} were asked for"
        )
    pca = PCA(dimensions, svd_solver="full").fit(training.astype(np.float64))
    return Projection(pca.mean_.astype(np.float32), pca.components_.astype(np.float32))
