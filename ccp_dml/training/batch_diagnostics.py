"""What a loss says of the last batch of an epoch."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import tensorflow as tf

from ccp_dml.distributed import replicas
from ccp_dml.training.train_step import TrainedLoss


class BatchDiagnostics:
    """Computes `loss.diagnostics`; where proxies are in parts, on all replicas."""

    def __init__(self, loss: TrainedLoss, strategy: tf.distribute.Strategy) -> None:
        self._loss, self._strategy = loss, strategy
        self._in_parts = any(replicas.table_of(v) is not None for v in loss.trainable_variables)
        self._on_replicas = tf.function(lambda *batch: strategy.run(loss.diagnostics, args=batch))

    def __call__(self, labels: tf.Tensor, embeddings: tf.Tensor) -> dict[str, npt.NDArray[np.float32]]:
        """The figures as arrays, for the labels and the raw embeddings [B, D] of a whole batch."""
        return {name: np.asarray(value) for name, value in self._figures(labels, embeddings).items()}

    def _figures(self, labels: tf.Tensor, embeddings: tf.Tensor) -> dict[str, Any]:
        if not self._in_parts:
            return self._loss.diagnostics(labels, embeddings)
        with self._strategy.scope():
            return dict(replicas.first_local(self._on_replicas(labels, embeddings)))
