"""Embeddings of image sets, and their evaluation: the way from a model and batches to metrics.

A baseline ("frozen features") is evaluated by the same functions with another model.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np
import tensorflow as tf

from ccp_dml.evaluation.inputs import Floats, Ints
from ccp_dml.evaluation.metrics import RetrievalResult, evaluate_retrieval
from ccp_dml.geometry.normalization import check_normalization, normalize
from ccp_dml.workers import ALONE, Workers


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
        workers: Workers = ALONE,
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
class LabeledImages:
    """A set of images to evaluate on.

    Attributes:
        batches: the images, in order, as `Embedder` takes them; iterated once per evaluation.
        labels: int [N].
        ids: int [N], identity of the images; needed where queries and gallery share images.
    """

    batches: Iterable[Any]
    labels: Ints
    ids: Ints | None = None


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


def evaluate_images(
    embedder: Embedder, queries: LabeledImages, gallery: LabeledImages | None = None, **options: Any
) -> Evaluation:
    """Embeds a set of images and measures retrieval in it.

    Args:
        embedder: model with the run's normalisation.
        queries: the images, each a query.
        gallery: the images that are ranked; None: the queries themselves, each without itself.
        **options: `recall_at`, `precision_at`, `map_at`, `memory_bytes` of `evaluate_retrieval`.

    Returns:
        The metrics and the embeddings.

    Raises:
        ValueError: if labels and images differ in number, or as `evaluate_retrieval` does.
    """
    embeddings = embedder(queries.batches)
    if gallery is None:
        return Evaluation(evaluate_retrieval(embeddings, queries.labels, **options), embeddings)
    gallery_embeddings = embedder(gallery.batches)
    result = evaluate_retrieval(
        embeddings,
        queries.labels,
        queries.ids,
        gallery_embeddings,
        gallery.labels,
        gallery.ids,
        **options,
    )
    return Evaluation(result, embeddings, gallery_embeddings)
