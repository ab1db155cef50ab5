"""What a run is about: its data, model and loss, how the model is scored, and how it is trained."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import tensorflow as tf

from ccp_dml.commands import warn
from ccp_dml.config import ExperimentConfig
from ccp_dml.config.initial_weights import locate
from ccp_dml.data.image_collection import ImageCollection
from ccp_dml.errors import UserError
from ccp_dml.evaluation.embedding import Embedder, Evaluation, evaluate_images
from ccp_dml.experiment import parts
from ccp_dml.experiment.batches import make_batches
from ccp_dml.experiment.native_output import use_up_xla_notice
from ccp_dml.experiment.task import Task, labeled_images, load_task
from ccp_dml.models.auxiliary_crops import with_test_crops
from ccp_dml.models.embedding_model import feature_model
from ccp_dml.run_directory import RunDirectory
from ccp_dml.serving.export import export_saved_model
from ccp_dml.training.checkpoints import Checkpoints
from ccp_dml.training.stopping import EarlyStopping
from ccp_dml.training.trainer import Trainer

_BASELINE_NORMALIZATION = "unit"


class Experiment:
    """Data, model and loss of one run, and how the model is scored.

    Attributes:
        config: the complete configuration.
        task: the image collections.
        model: the embedding model.
        loss: the loss.
        inference: the model in inference mode, compiled once.
        monitored_embeddings: float32 [N, D], those of `monitored` at the last validation.
    """

    def __init__(self, config: ExperimentConfig, *, initial_weights: bool = True) -> None:
        """Opens the data and builds the model with its initial weights.

        Args:
            config: a valid configuration, with its derived values filled in (`ExperimentConfig.resolve`).
            initial_weights: whether to load the weights that training starts from; those of a finished run,
                which are loaded afterwards, need them no more.

        Raises:
            UserError: if the data is missing, unusable, or too small for the flags, or if weights do not fit.
        """
        tf.keras.utils.set_random_seed(config.run.seed)
        tf.keras.mixed_precision.set_global_policy(config.training.mixed_precision)
        # A GPU would round the factors of float32 products to 10 bits, distances included.
        tf.config.experimental.enable_tensor_float_32_execution(False)
        self.config = config
        self.model = parts.make_model(config, load=initial_weights)
        if initial_weights:
            self._load_initial_weights()
        self.task: Task = load_task(config.data)
        self.loss = parts.make_loss(config, self.task.train.num_classes)
        self.monitored_embeddings = np.zeros((0, config.model.embedding_size), np.float32)
        self.inference = parts.make_inference(config, self.model)
        self._evaluated_model = self._with_test_crops(self.model)
        self._embedder = Embedder(
            self.inference
            if self._evaluated_model is self.model
            else parts.make_inference(config, self._evaluated_model),
            parts.normalization(config),
        )

    @property
    def monitored(self) -> ImageCollection | None:
        """The images that training is monitored on, as `--monitor_split` says; None if no class is held out.

        The queries, if they have a gallery.
        """
        return self.task.test if self._monitors_test else self.task.validation

    @property
    def _monitors_test(self) -> bool:
        return self.config.training.monitor_split == "test"

    def evaluate_test(self, embedder: Embedder | None = None) -> Evaluation:
        """Scores the model, or another embedder, on the test classes."""
        return self._evaluate(embedder or self._embedder, self.task.test, self.task.gallery)

    def evaluate_validation(self) -> Evaluation | None:
        """Scores the model on the held-out training classes; None if there are none."""
        return None if self.task.validation is None else self._evaluate(self._embedder, self.task.validation)

    def evaluate_frozen_features(self) -> Evaluation:
        """Scores the pooled features of the backbone as it is now, at unit length, on the test classes."""
        features = self._with_test_crops(feature_model(self.model))
        return self.evaluate_test(Embedder(features, _BASELINE_NORMALIZATION))

    def _with_test_crops(self, model: tf.keras.Model) -> tf.keras.Model:
        return with_test_crops(model, self.config.evaluation.test_crops)

    def _evaluate(
        self, embedder: Embedder, queries: ImageCollection, gallery: ImageCollection | None = None
    ) -> Evaluation:
        flags, preprocessing = self.config.evaluation, parts.test_preprocessing(self.config.data)
        batch_size = flags.evaluation_batch_size
        try:
            return evaluate_images(
                embedder,
                labeled_images(queries, preprocessing, batch_size),
                None if gallery is None else labeled_images(gallery, preprocessing, batch_size),
                recall_at=flags.recall_at,
                precision_at=flags.precision_at,
                map_at=flags.map_at,
            )
        except ValueError as error:
            raise UserError(f"--dataset={self.config.data.dataset} cannot be evaluated: {error}") from error

    def make_trainer(
        self, directory: RunDirectory, callbacks: Sequence[tf.keras.callbacks.Callback]
    ) -> Trainer:
        """Everything that trains the model, with its state in the run directory."""
        config, training = self.config, self.config.training
        if training.jit_compile:
            if not tf.config.list_logical_devices("GPU"):
                warn("--jit_compile: on a CPU, XLA makes convolutional backbones many times slower")
            use_up_xla_notice()
        has_scores = self.monitored is not None
        projections = parts.make_projections(config, self.model, self.inference, self.loss, self.task.train)
        restored = [*self.model.variables, *self.loss.variables] if training.restore_best else []
        return Trainer(
            self.model,
            self.loss,
            parts.make_optimizer_groups(training, self.model, self.loss),
            make_batches(config, self.task.train),
            steps_per_epoch=training.steps_per_epoch,
            transforms=parts.make_transforms(training, self.model, projections),
            validate=self.validation_scores if has_scores else None,
            schedule=parts.make_schedule(training),
            stopping=EarlyStopping(restored, patience=training.patience or None, monitor=training.monitor)
            if has_scores
            else None,
            projections=projections,
            warm_up=parts.make_warm_up(training, self.model),
            checkpoints=Checkpoints(directory.checkpoints, keep=config.run.checkpoint_keep),
            callbacks=callbacks,
            jit_compile=training.jit_compile,
            **({} if training.chunk_size is None else {"chunk_size": training.chunk_size}),
        )

    def validation_scores(self) -> dict[str, float]:
        """Scores the model on the `monitored` images, whose embeddings are kept."""
        evaluation = self.evaluate_test() if self._monitors_test else self.evaluate_validation()
        assert evaluation is not None
        self.monitored_embeddings = evaluation.embeddings
        return evaluation.result.scalars()

    def save_weights(self, directory: RunDirectory) -> None:
        """Writes the weights that are evaluated and exported."""
        self._weights().write(str(_weights_path(directory)))

    def load_weights(self, directory: RunDirectory) -> None:
        """Reads what `save_weights` wrote.

        Raises:
            UserError: if the file is missing or belongs to another model.
        """
        path = _weights_path(directory)
        _read(self._weights(), path, f"{path}: expected the weights of this run")

    def _load_initial_weights(self) -> None:
        path = locate(self.config.model.initial_weights, self.config.data.fold)
        if path is not None:
            flag = f"--initial_weights={self.config.model.initial_weights}"
            _read(tf.train.Checkpoint(model=self.model), path, f"{flag}: expected weights of the same model")

    def _weights(self) -> tf.train.Checkpoint:
        return tf.train.Checkpoint(model=self.model, loss=self.loss)

    def export(self, directory: Path | str, *, overwrite: bool = False) -> None:
        """Writes a SavedModel of the model as it is now."""
        export_saved_model(
            self._evaluated_model,
            str(directory),
            preprocessing=parts.test_preprocessing(self.config.data),
            normalization=parts.normalization(self.config),
            overwrite=overwrite,
        )


def _read(checkpoint: tf.train.Checkpoint, path: Path, expectation: str) -> None:
    try:
        checkpoint.read(str(path)).assert_existing_objects_matched().expect_partial()
    except (tf.errors.OpError, AssertionError, ValueError, IndexError, RuntimeError) as error:
        reason = str(error).strip().split("\n", 1)[0]
        raise UserError(f"{expectation}: {reason}") from error


def _weights_path(directory: RunDirectory) -> Path:
    return directory.checkpoints / "best"
