"""The model of a finished run, on the run's own test images or on those of another data set."""

from __future__ import annotations

import gc
from pathlib import Path

import tensorflow as tf

from ccp_dml.config import ExperimentConfig
from ccp_dml.errors import UserError
from ccp_dml.evaluation.embedding import Embedded, Embedder
from ccp_dml.experiment import parts
from ccp_dml.experiment.exporting import export_model
from ccp_dml.experiment.scoring import Scorer
from ccp_dml.experiment.task import load_task, open_dataset
from ccp_dml.experiment.weights import load_run_weights
from ccp_dml.run_directory import RunDirectory


class FinishedRun:
    """The model of one finished run.

    Attributes:
        config: the run's.
        model: with the weights that were evaluated.
    """

    def __init__(self, directory: RunDirectory) -> None:
        """Builds the model and reads its weights.

        Raises:
            UserError: if the folder holds no finished run, or its weights cannot be read.
        """
        self.config = directory.read_config()
        directory.read_results()
        parts.prepare_tensorflow(self.config)
        self.model = parts.make_model(self.config, load=False)
        load_run_weights(directory, self.model)

    def embed(self, scorer: Scorer) -> Embedded:
        """Embeds the images of a scorer, normalised as the run's."""
        inference = parts.make_inference(self.config, parts.evaluated_model(self.config, self.model))
        return scorer.embed(Embedder(inference, parts.normalization(self.config)))

    def export(self, output: str, pca_dim: int | None) -> None:
        """Writes a SavedModel.

        Args:
            output: folder to write; new or empty.
            pca_dim: reduce the embeddings to so many dimensions, by a PCA of the run's training embeddings.

        Raises:
            UserError: if it cannot be written, or the run has too few training images.
        """
        config, projection = self.config.replace(pca_dim=pca_dim), None
        if pca_dim is not None:
            scorer = Scorer.of_test(config, load_task(config.data))
            projection = scorer.fit(self.embed(scorer))
        folder = Path(output)
        try:
            empty = folder.is_dir() and not any(folder.iterdir())
            export_model(config, self.model, folder, projection, overwrite=empty)
        except (OSError, tf.errors.OpError) as error:
            reason = error.strerror if isinstance(error, OSError) else error.message
            raise UserError(f"--output={output}: cannot be written: {reason}") from error
        print(f"SavedModel: {output}", flush=True)


def scorer_of(run: ExperimentConfig, evaluated: ExperimentConfig) -> Scorer:
    """Scores models of `run` on the test images that `evaluated` names.

    A PCA is fitted on the training images of the run.
    """
    own = run.members[0].config
    elsewhere = {"prepared_dir": evaluated.data.prepared_dir}
    if evaluated.data == run.replace(**elsewhere).data:
        return Scorer.of_test(evaluated, load_task(own.replace(**elsewhere).data))
    images = open_dataset(evaluated.data)
    training = [] if evaluated.evaluation.pca_dim is None else load_task(own.data).training_split
    return Scorer(evaluated, images.test, images.gallery, training)


def forget_models() -> None:
    """Frees what TensorFlow keeps of models that are no longer used, before the next one is built."""
    tf.keras.backend.clear_session()
    gc.collect()
