"""The SavedModel of a run: preprocessing, model, normalisation and, with `--pca_dim`, the projection."""

from __future__ import annotations

from pathlib import Path

import tensorflow as tf

from ccp_dml.config import ExperimentConfig
from ccp_dml.evaluation.embedding import Projection
from ccp_dml.experiment import parts
from ccp_dml.models.layers import LipschitzNormalization
from ccp_dml.serving.export import export_saved_model


def export_model(
    config: ExperimentConfig,
    model: tf.keras.Model,
    directory: Path | str,
    projection: Projection | None = None,
    *,
    overwrite: bool = False,
) -> None:
    """Writes a SavedModel that gives the embeddings that the final test searches.

    Args:
        config: the run's.
        model: the embedding model with its weights.
        directory: what to write.
        projection: onto principal components, after the normalisation; or None.
        overwrite: replace an existing directory.
    """
    model, normalization = parts.evaluated_model(config, model), parts.normalization(config)
    if projection is not None:
        model, normalization = _projecting(model, normalization, projection), "none"
    export_saved_model(
        model,
        str(directory),
        preprocessing=parts.test_preprocessing(config.data),
        normalization=normalization,
        overwrite=overwrite,
    )


def _projecting(model: tf.keras.Model, normalization: str, projection: Projection) -> tf.keras.Model:
    dense = tf.keras.layers.Dense(len(projection.components), dtype="float32", name="principal_components")
    outputs = dense(LipschitzNormalization(normalization)(model.output))
    kernel = projection.components.T
    dense.set_weights([kernel, -projection.mean @ kernel])
    return tf.keras.Model(model.input, outputs)
