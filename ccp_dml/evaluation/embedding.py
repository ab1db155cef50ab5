"""Embeddings of image sets: arrays from a model and batches, side by side, or after a projection."""

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

_DIVISOR = 4
_NO_MEMORY = (tf.errors.ResourceExhaustedError, MemoryError)
T = TypeVar("T")


class Embedder:
    """Embeds batches of images in inference mode and normalises the embeddings.

    Compiled at the first batch, once for all batch sizes. Keep the embedder of a model that is evaluated
    repeatedly: it follows the weights of the model, and later calls cost no tracing.

    Args:
        model: called as `model(images, training=False)`; returns raw embeddings [B, D].
        normalization: 'lipschitz', 'unit', 'l1' or 'none'.
        workers: the processes that share the model; the replicas of this process divide each batch.

    Raises:
        ValueError: if the normalisation is unknown.

    Example:
        >>> embedder = Embedder(tf.keras.Sequential([tf.keras.layers.Dense(2)]), "unit")
        >>> embedder([np.ones([3, 4], np.float32), np.ones([1, 4], np.float32)]).shape
        (4, 2)
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
        """Embeds all batches in order.

        Args:
            batches: finite `tf.data.Dataset` or iterable of images [B, H, W, 3] (any B), or of tuples whose
                first element they are.

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
    """Embeds all batches of images with a model that is used once; see `Embedder`.

    Returns:
        float32 [N, D], normalised.

    Example:
        >>> embed(tf.keras.layers.Dense(2), [np.ones([3, 4], np.float32)]).shape
        (3, 2)
    """
    return Embedder(model, normalization)(batches)


@dataclass(frozen=True)
class Evaluation:
    """Metrics and the normalised embeddings that they were computed from.

    Attributes:
        result: the metrics.
        embeddings: float32 [Q, D], of the queries.
        gallery_embeddings: float32 [G, D]; None for self-retrieval.

    Example:
        >>> embeddings = np.array([[0.0], [1.0], [5.0]])
        >>> result = ccp_dml.evaluate_retrieval(embeddings, [0, 0, 1])
        >>> Evaluation(result, embeddings).result.precision_at_1.tolist()
        [1.0, 1.0, nan]
    """

    result: RetrievalResult
    embeddings: Floats
    gallery_embeddings: Floats | None = None


@dataclass(frozen=True)
class Embedded:
    """Normalised embeddings of the images of a task.

    Attributes:
        test: float32 [Q, D], of the test images; the queries if there is a gallery.
        gallery: float32 [G, D]; None for self-retrieval.
        training: float32 [T, D], of the training images, in an order that does not depend on the fold; None
            unless a PCA needs them.
    """

    test: Floats
    gallery: Floats | None = None
    training: Floats | None = None

    def projected(self, projection: Projection) -> Embedded:
        """Test and gallery embeddings after a projection."""
        gallery = None if self.gallery is None else projection(self.gallery)
        return Embedded(projection(self.test), gallery)


def concatenate(models: Sequence[Embedded], normalization: str = "none") -> Embedded:
    """Puts the embeddings of several models side by side.

    Args:
        models: at least one; embeddings of the same images.
        normalization: applied to the embeddings of each model first. "none" leaves them as the run normalised
            them; "unit" gives every model the same weight, as in A Metric Learning Reality Check (Musgrave et
            al. 2020).

    Returns:
        Embeddings whose D is the sum of the D of the models.
    """

    def side_by_side(arrays: list[Floats]) -> Floats:
        return np.concatenate([normalize(array, normalization).numpy() for array in arrays], axis=1)

    def optional(arrays: list[Floats | None]) -> Floats | None:
        present = [array for array in arrays if array is not None]
        return side_by_side(present) if present else None

    return Embedded(
        side_by_side([model.test for model in models]),
        optional([model.gallery for model in models]),
        optional([model.training for model in models]),
    )


@dataclass(frozen=True)
class Projection:
    """The affine map onto principal components, `(x - mean) @ components.T`.

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
    """Finds the principal components of embeddings.

    Args:
        training: float32 [T, D], embeddings of training images.
        dimensions: number of components N.

    Raises:
        UnscorableError: if N is larger than T or D.
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


class SmallerBlocks:
    """Repeats a computation that runs out of memory in blocks of a quarter of the size, and stays with these.

    Attributes:
        divisor: divisor of the sizes of blocks: 1, or 4 after a computation ran out of memory.
    """

    def __init__(self, batch_size: int) -> None:
        """Takes the value of `--evaluation_batch_size`."""
        self._batch_size, self.divisor = batch_size, 1

    @property
    def batch_size(self) -> int:
        """Images per block at present."""
        return max(1, self._batch_size // self.divisor)

    def __call__(self, compute: Callable[[], T]) -> T:
        """Returns the result of `compute`, which is called again if it runs out of memory.

        Raises:
            UserError: if it runs out of memory with the smaller blocks, too.
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
