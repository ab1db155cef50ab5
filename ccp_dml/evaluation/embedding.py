"""Embeddings of image sets: from a model and batches to arrays, concatenated or projected."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

import numpy as np
import tensorflow as tf
from sklearn.decomposition import PCA

from ccp_dml.commands import warn
from ccp_dml.distributed.workers import SINGLE_WORKER, Workers
from ccp_dml.errors import UserError
from ccp_dml.evaluation.inputs import Floats, UnscorableError
from ccp_dml.evaluation.metrics import RetrievalResult
from ccp_dml.geometry import check_normalization, normalize


class Embedder:
    """Embeds batches of images in inference mode, normalised.

    Compiled at the first batch, once for all batch sizes. Keep one for a model that is evaluated repeatedly:
    it follows the model's weights, and later calls cost no tracing.

    Args:
        model: called as `model(images, training=False)`; returns raw embeddings [B, D].
        normalization: the run's: 'lipschitz', 'unit', 'l1' or 'none'.
        workers: whose model it is; the replicas of this process divide each batch.

    Raises:
        ValueError: if the normalisation is unknown.
    """

    def __init__(
        self,
        model: Callable[..., tf.Tensor],
        normalization: str = "lipschitz",
        workers: Workers = SINGLE_WORKER,
    ):
        check_normalization(normalization)
        self._model = model
        self._normalization = normalization
        self._workers = workers
        self._compiled: Callable[[tf.Tensor], tf.Tensor] | None = None

    def __call__(self, batches: Iterable[Any]) -> Floats:
        """Embeds all batches, in order.

        Args:
            batches: finite `tf.data.Dataset` or iterable of images [B, H, W, 3] (any B), or of tuples that
                begin with them.

        Returns:
            float32 [N, D].

        Raises:
            ValueError: if there is no batch.
        """
        embeddings = []
        for batch in batches:
            images = tf.convert_to_tensor(batch[0] if isinstance(batch, tuple) else batch)
            if self._compiled is None:
                self._compiled = self._compile(images)
            embeddings.append(self._compiled(images).numpy())
        if not embeddings:
            raise ValueError("there is no image to embed")
        return np.concatenate(embeddings)

    def _compile(self, images: tf.Tensor) -> Callable[[tf.Tensor], tf.Tensor]:
        signature = tf.TensorSpec([None, *images.shape[1:]], images.dtype)

        def embed_rows(images: tf.Tensor) -> tf.Tensor:
            return normalize(self._model(images, training=False), self._normalization)

        @tf.function(input_signature=[signature])
        def embed_batch(batch: tf.Tensor) -> tf.Tensor:
            return self._workers.on_replicas(embed_rows, batch)

        return embed_batch


def embed(
    model: Callable[..., tf.Tensor], batches: Iterable[Any], normalization: str = "lipschitz"
) -> Floats:
    """Embeds all batches of images once; see `Embedder`.

    Returns:
        float32 [N, D], normalised.
    """
    return Embedder(model, normalization)(batches)


@dataclass(frozen=True)
class Evaluation:
    """Metrics, and the normalised embeddings that they were computed from.

    Attributes:
        result: the metrics.
        embeddings: float32 [Q, D] of the queries.
        gallery_embeddings: float32 [G, D], or None for self-retrieval.
    """

    result: RetrievalResult
    embeddings: Floats
    gallery_embeddings: Floats | None = None


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


_DIVISOR = 4
_NO_MEMORY = (tf.errors.ResourceExhaustedError, MemoryError)
T = TypeVar("T")


class SmallerBlocks:
    """Repeats a computation once in blocks of a quarter of the size, and keeps to them.

    Attributes:
        divisor: what the sizes of blocks are divided by: 1, or 4 once the memory did not suffice.
    """

    def __init__(self, batch_size: int) -> None:
        """Takes the value of `--evaluation_batch_size`, which messages name."""
        self._batch_size, self.divisor = batch_size, 1

    @property
    def batch_size(self) -> int:
        """Images per block now."""
        return max(1, self._batch_size // self.divisor)

    def __call__(self, compute: Callable[[], T]) -> T:
        """Returns what `compute` does, called a second time if the memory does not suffice.

        Raises:
            UserError: it does not suffice for the smaller blocks either.
        """
        if self.divisor == 1:
            try:
                return compute()
            except _NO_MEMORY:
                self.divisor = _DIVISOR
                warn(
                    f"--evaluation_batch_size={self._batch_size}: too little memory to embed or search; "
                    f"going on with {self.batch_size}"
                )
        try:
            return compute()
        except _NO_MEMORY as error:
            raise UserError(
                f"--evaluation_batch_size={self._batch_size}: too little memory to embed or search, "
                f"not even {self.batch_size} images at once; expected a smaller number"
            ) from error
