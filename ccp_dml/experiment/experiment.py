"""What a run is about: its data, model and loss, how the model is scored, and how it is trained."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import tensorflow as tf

from ccp_dml import faults
from ccp_dml.commands import warn
from ccp_dml.config import ExperimentConfig
from ccp_dml.data.image_collection import ImageCollection
from ccp_dml.errors import UserError
from ccp_dml.evaluation.blocks import DEFAULT_MEMORY_BYTES
from ccp_dml.evaluation.embedding import Embedder, Evaluation, evaluate_images
from ccp_dml.experiment import parts
from ccp_dml.experiment.batches import make_batches
from ccp_dml.experiment.native_output import use_up_xla_notice
from ccp_dml.experiment.repetition import make_repeatable, make_saver
from ccp_dml.experiment.smaller_blocks import SmallerBlocks
from ccp_dml.experiment.task import Task, labeled_images, load_task
from ccp_dml.geometry.spread import mean_cosine
from ccp_dml.models.embedding_model import feature_model
from ccp_dml.run_directory import RunDirectory
from ccp_dml.serving.export import export_saved_model
from ccp_dml.training.finite import FiniteGuard
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

    def __init__(self, config: ExperimentConfig) -> None:
        """Opens the data and builds the model with its initial weights.

        Args:
            config: a valid configuration, with its derived values filled in (`ExperimentConfig.resolve`).

        Raises:
            UserError: if the data is missing, unusable, or too small for the flags.
        """
        make_repeatable(config)
        tf.keras.mixed_precision.set_global_policy(config.training.mixed_precision)
        # A GPU would round the factors of float32 products to 10 bits, distances included.
        tf.config.experimental.enable_tensor_float_32_execution(False)
        self.config = config
        self.task: Task = load_task(config.data)
        self.model = parts.make_model(config)
        self.loss = parts.make_loss(config, self.task.train.num_classes)
        self.monitored_embeddings = np.zeros((0, config.model.embedding_size), np.float32)
        self.inference = parts.make_inference(config, self.model)
        self._embedder = Embedder(self.inference, parts.normalization(config))
        self._blocks = SmallerBlocks(config.evaluation.evaluation_batch_size)

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
        return self.evaluate_test(Embedder(feature_model(self.model), _BASELINE_NORMALIZATION))

    def _evaluate(
        self, embedder: Embedder, queries: ImageCollection, gallery: ImageCollection | None = None
    ) -> Evaluation:
        flags, preprocessing = self.config.evaluation, parts.test_preprocessing(self.config.data)

        def evaluate() -> Evaluation:
            batch_size = self._blocks.batch_size
            return evaluate_images(
                embedder,
                labeled_images(queries, preprocessing, batch_size),
                None if gallery is None else labeled_images(gallery, preprocessing, batch_size),
                recall_at=flags.recall_at,
                precision_at=flags.precision_at,
                map_at=flags.map_at,
                memory_bytes=DEFAULT_MEMORY_BYTES // self._blocks.divisor,
            )

        try:
            return self._blocks(evaluate)
        except UserError:
            raise
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
            saver=make_saver(config, directory),
            guard=FiniteGuard(training.nan_policy),
            callbacks=callbacks,
            jit_compile=training.jit_compile,
            **({} if training.chunk_size is None else {"chunk_size": training.chunk_size}),
        )

    def validation_scores(self) -> dict[str, float]:
        """Scores the model on the `monitored` images, whose embeddings are kept."""
        evaluation = self.evaluate_test() if self._monitors_test else self.evaluate_validation()
        assert evaluation is not None
        self.monitored_embeddings = evaluation.embeddings
        return {**evaluation.result.scalars(), "mean_cosine": mean_cosine(evaluation.embeddings)}

    def save_weights(self, directory: RunDirectory) -> None:
        """Writes the weights that are evaluated and exported."""
        path = _weights_path(directory)
        path.parent.mkdir(exist_ok=True)
        faults.passage("weights")
        self._weights().write(str(path))

    def load_weights(self, directory: RunDirectory) -> None:
        """Reads what `save_weights` wrote.

        Raises:
            UserError: if the file is missing or belongs to another model.
        """
        path = _weights_path(directory)
        try:
            self._weights().read(str(path)).assert_existing_objects_matched().expect_partial()
        except (tf.errors.OpError, AssertionError, ValueError, IndexError, RuntimeError) as error:
            reason = str(error).strip().split("\n", 1)[0]
            raise UserError(f"{path}: expected the weights of this run: {reason}") from error

    def _weights(self) -> tf.train.Checkpoint:
        return tf.train.Checkpoint(model=self.model, loss=self.loss)

    def export(self, directory: Path | str, *, overwrite: bool = False) -> None:
        """Writes a SavedModel of the model as it is now."""
        export_saved_model(
            self.model,
            str(directory),
            preprocessing=parts.test_preprocessing(self.config.data),
            normalization=parts.normalization(self.config),
            overwrite=overwrite,
        )


def _weights_path(directory: RunDirectory) -> Path:
    return directory.checkpoints / "best"
