"""Retrieval metrics in the logs of `fit`."""

from __future__ import annotations

import numpy as np
import pytest
import tensorflow as tf

import ccp_dml.losses
from ccp_dml.evaluation import evaluate_retrieval
from ccp_dml.evaluation.callback import RetrievalMetrics


def test_the_logs_have_the_metrics_of_normalised_embeddings_and_keras_monitors_them():
    rng = np.random.default_rng(0)
    samples, labels = rng.normal(size=[50, 6]).astype(np.float32) * 3, np.repeat(np.arange(10), 5)
    model = tf.keras.Sequential([tf.keras.layers.Dense(4)])
    model.compile(optimizer=tf.keras.optimizers.SGD(0.0), loss=ccp_dml.losses.Contrastive())
    metrics = RetrievalMetrics(samples, labels, normalization="unit", recall_at=(1, 3), batch_size=7)
    stopping = tf.keras.callbacks.EarlyStopping("val_map_at_r", mode="max", patience=2)
    history = model.fit(samples, labels, epochs=9, verbose=0, callbacks=[metrics, stopping])
    embeddings = model(samples).numpy().astype(np.float64)
    embeddings /= np.linalg.norm(embeddings, axis=1, keepdims=True)
    expected = evaluate_retrieval(embeddings, labels, recall_at=(1, 3)).scalars()
    assert len(history.history["loss"]) == 3  # Nothing improves without a learning rate.
    found = {
        name.removeprefix("val_"): values[-1] for name, values in history.history.items() if name != "loss"
    }
    assert found == pytest.approx(expected)
    assert "recall_at_3" in found


def test_wrong_arguments_are_refused_at_once():
    with pytest.raises(ValueError, match=r"labels have the shape \(3,\); expected \(4,\)"):
        RetrievalMetrics(np.zeros((4, 2)), [0, 1, 1])
    with pytest.raises(ValueError, match="normalization"):
        RetrievalMetrics(np.zeros((2, 2)), [0, 1], normalization="max")
