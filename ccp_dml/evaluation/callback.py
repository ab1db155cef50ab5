"""Retrieval metrics in `fit` of any Keras model."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np
import numpy.typing as npt
import tensorflow as tf

from ccp_dml.evaluation.metrics import RECALL_AT, evaluate_retrieval
from ccp_dml.geometry import check_normalization, normalize


class RetrievalMetrics(tf.keras.callbacks.Callback):
    """Adds exact retrieval metrics of held-out samples to the logs of each epoch.

    The names are `val_precision_at_1`, `val_r_precision`, `val_map_at_r`, `val_recall_at_4`, ..., so that
    `EarlyStopping`, `ModelCheckpoint` and `ReduceLROnPlateau` can monitor them with `mode="max"`. Put this
    callback before those.

    Example:
        >>> samples, labels = np.eye(4, dtype=np.float32), np.array([0, 0, 1, 1])
        >>> model = tf.keras.Sequential([tf.keras.layers.Dense(2)])
        >>> model.compile(optimizer="sgd", loss=ccp_dml.losses.MultiSimilarity())
        >>> metrics = RetrievalMetrics(samples, labels)
        >>> history = model.fit(samples, labels, verbose=0, callbacks=[metrics])
        >>> sorted(history.history)[:3]
        ['loss', 'val_map_at_r', 'val_precision_at_1']
    """

    def __init__(
        self,
        samples: Any,
        labels: npt.ArrayLike,
        *,
        normalization: str = "lipschitz",
        recall_at: Iterable[int] = RECALL_AT,
        batch_size: int = 128,
    ) -> None:
        """Keeps the samples; each is a query, and the others are its gallery.

        Args:
            samples: inputs of the model, [N, ...]: an array, or a sequence of arrays.
            labels: integers [N]; classes that the training does not see test generalisation.
            normalization: normalisation of the embeddings, that of the loss: "lipschitz", "unit", "l1" or
                "none".
            recall_at: the k of R@k.
            batch_size: samples that are embedded at once, at least 1.

        Raises:
            ValueError: if the labels do not fit the samples, or the normalisation is unknown.
        """
        super().__init__()
        labels = np.asarray(labels)
        if labels.shape != (len(samples),):
            raise ValueError(f"labels have the shape {labels.shape}; expected ({len(samples)},)")
        check_normalization(normalization, "normalization")
        self._samples, self._labels, self._normalization = samples, labels, normalization
        self._recall_at, self._batch_size = tuple(recall_at), batch_size

    def on_epoch_end(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        """Embeds and ranks the samples, and adds the scores to the logs."""
        if logs is not None:
            logs.update({f"val_{name}": value for name, value in self.scores(self.model).items()})

    def scores(self, model: tf.keras.Model) -> dict[str, float]:
        """Returns the scores of a model by name, for `Trainer.create(validate=...)` or a loop of your own."""
        embeddings = embed_rows(model, self._samples, np.arange(len(self._samples)), self._batch_size)
        embeddings = normalize(tf.constant(embeddings), self._normalization).numpy()
        return evaluate_retrieval(embeddings, self._labels, recall_at=self._recall_at).scalars()


def embed_rows(
    model: tf.keras.Model, samples: Any, rows: npt.NDArray[np.integer[Any]], batch_size: int
) -> npt.NDArray[np.float32]:
    """Embeds some samples in inference mode.

    Args:
        model: a model from samples [B, ...] to embeddings [B, D].
        samples: an array [N, ...], or a sequence of arrays.
        rows: int [n], the samples to embed.
        batch_size: samples that are embedded at once.

    Returns:
        float32 [n, D].
    """
    batches = [rows[first : first + batch_size] for first in range(0, len(rows), batch_size)]
    embedded = [model(_chosen(samples, batch), training=False).numpy() for batch in batches]
    return np.concatenate(embedded).astype(np.float32)


def _chosen(samples: Any, rows: npt.NDArray[np.integer[Any]]) -> Any:
    if hasattr(samples, "shape"):
        return tf.convert_to_tensor(samples[rows])
    return tf.stack([samples[row] for row in rows])
