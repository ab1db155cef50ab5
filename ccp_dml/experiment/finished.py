"""Finished runs: their models, embeddings and exports, and scorers of their test images."""

from __future__ import annotations

from pathlib import Path

import tensorflow as tf

from ccp_dml.config import ExperimentConfig, protocols
from ccp_dml.data.images import test_preprocessing
from ccp_dml.data.options import SourceOptions
from ccp_dml.errors import UserError
from ccp_dml.evaluation.embedding import Embedded, Embedder, Projection
from ccp_dml.experiment.model import build_model, compiled_inference, load_run_weights, set_up_tensorflow
from ccp_dml.experiment.scoring import Scorer
from ccp_dml.experiment.task import Task, load_task, open_dataset
from ccp_dml.models.embedding_model import with_test_crops
from ccp_dml.models.layers import LipschitzNormalization
from ccp_dml.run_directory import RunDirectory
from ccp_dml.serving.export import export_saved_model


class FinishedRun:
    """One finished run with its model.

    Attributes:
        config: the configuration of the run.
        model: the embedding model with the weights that were evaluated.
    """

    def __init__(self, directory: RunDirectory) -> None:
        """Builds the model and reads its weights.

        Raises:
            UserError: if the folder holds no finished run, or its weights cannot be read.
        """
        self.config = config = directory.read_config()
        directory.read_results()
        directory.check_backbone(config)
        set_up_tensorflow(config.training, config.run.seed)
        self.model = build_model(config.model, config.images.image_size, config.run.seed, load=False)
        load_run_weights(directory, self.model)

    def embed(self, scorer: Scorer) -> Embedded:
        """Embeds the images of a scorer with the normalisation of the run."""
        model = with_test_crops(self.model, self.config.evaluation.test_crops)
        inference = compiled_inference(model, self.config.images.image_size)
        return scorer.embed(Embedder(inference, self.config.loss.normalization))

    def export(self, output: str, pca_dim: int | None) -> None:
        """Writes a SavedModel.

        Args:
            output: folder to write, new or empty.
            pca_dim: dimensions of the embeddings after a PCA of the training embeddings; None: no PCA.

        Raises:
            UserError: if it cannot be written, or the run has too few training images.
        """
        config, projection = self.config.replace(pca_dim=pca_dim), None
        if pca_dim is not None:
            scorer = scorer_of(self.config, config)
            projection = scorer.fit(self.embed(scorer))
        folder = Path(output)
        try:
            empty = folder.is_dir() and not any(folder.iterdir())
            export_model(config, self.model, folder, projection, overwrite=empty)
        except (OSError, tf.errors.OpError) as error:
            reason = error.strerror or error if isinstance(error, OSError) else error.message
            raise UserError(f"--output={output}: cannot be written: {reason}") from error
        print(f"SavedModel: {output}", flush=True)


def export_model(
    config: ExperimentConfig,
    model: tf.keras.Model,
    directory: Path | str,
    projection: Projection | None = None,
    *,
    overwrite: bool = False,
) -> None:
    """Writes a SavedModel whose embeddings are those of the final test.

    Args:
        config: the configuration of the run.
        model: the embedding model with its weights.
        directory: folder to write.
        projection: projection onto principal components after the normalisation; None: none.
        overwrite: replace an existing folder.
    """
    model, normalization = with_test_crops(model, config.evaluation.test_crops), config.loss.normalization
    if projection is not None:
        model, normalization = _with_projection(model, normalization, projection), "none"
    export_saved_model(
        model,
        str(directory),
        preprocessing=test_preprocessing(config.images),
        normalization=normalization,
        overwrite=overwrite,
    )


def scorer_of(run: ExperimentConfig, evaluated: ExperimentConfig) -> Scorer:
    """Makes the scorer of the test images of `evaluated`; a PCA is fitted on the training images of `run`.

    Args:
        run: the configuration of the run or group, with its folder.
        evaluated: the same, or with another data set or PCA.

    Raises:
        UserError: if the data cannot be used, or those of the run have changed since it began.
    """
    elsewhere = {"prepared_dir": evaluated.source.prepared_dir}
    if evaluated.source == run.replace(**elsewhere).source:
        return _scorer_of_task(evaluated, _task_of(run, evaluated.source))
    images = open_dataset(evaluated.source, evaluated.split)
    training = []
    if evaluated.evaluation.pca_dim is not None:
        training = _task_of(run, run.source).training_split
    preprocessing = test_preprocessing(evaluated.images)
    return Scorer(evaluated.evaluation, preprocessing, images.test, images.gallery, training=training)


def _task_of(run: ExperimentConfig, source: SourceOptions) -> Task:
    """Opens the data of a run or group; raises `UserError` if they have changed."""
    member = protocols.members(run)[0].config
    task = load_task(source, member.split, member.batches)
    RunDirectory.of(run).check_data(task.dataset.fingerprint())
    return task


def _scorer_of_task(config: ExperimentConfig, task: Task) -> Scorer:
    """Makes the scorer of the test images of a task; a PCA is fitted on the images of all folds."""
    preprocessing = test_preprocessing(config.images)
    return Scorer(config.evaluation, preprocessing, task.test, task.gallery, training=task.training_split)


def _with_projection(model: tf.keras.Model, normalization: str, projection: Projection) -> tf.keras.Model:
    """The model followed by its normalisation and the projection."""
    dense = tf.keras.layers.Dense(len(projection.components), dtype="float32", name="principal_components")
    outputs = dense(LipschitzNormalization(normalization)(model.output))
    kernel = projection.components.T
    dense.set_weights([kernel, -projection.mean @ kernel])
    return tf.keras.Model(model.input, outputs)
