"""What a run is about: its data, model and loss, how the model is scored, and how it is trained."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import tensorflow as tf

from ccp_dml.commands import warn
from ccp_dml.config import ExperimentConfig
from ccp_dml.data.collection import ImageCollection
from ccp_dml.distributed.strategy import make_strategy, scope_of, workers_of
from ccp_dml.errors import UserError
from ccp_dml.evaluation.embedding import Embedder, Evaluation, SmallerBlocks
from ccp_dml.experiment import parts
from ccp_dml.experiment.batches import make_batches
from ccp_dml.experiment.native_output import use_up_xla_notice
from ccp_dml.experiment.repetition import make_saver
from ccp_dml.experiment.scoring import Scorer
from ccp_dml.experiment.task import Task, load_task
from ccp_dml.experiment.weights import load_initial_weights
from ccp_dml.geometry import mean_cosine
from ccp_dml.models.embedding_model import feature_model, synchronize_batch_norm
from ccp_dml.run_directory import RunDirectory
from ccp_dml.training.controllers import EarlyStopping
from ccp_dml.training.finite import FiniteGuard
from ccp_dml.training.trainer import Trainer

_BASELINE_NORMALIZATION = "unit"


class Experiment:
    """Data, model and loss of one run, and how the model is scored.

    Attributes:
        config: the complete configuration.
        strategy: the devices that train together; None for one.
        workers: the processes that train together.
        task: the image collections.
        model: the embedding model.
        loss: the loss.
        inference: the model in inference mode, compiled once.
        embedder: the same with the run's normalisation.
        blocks: how many images are embedded at once; for all of the run, which has one memory.
        monitored_embeddings: float32 [N, D], those of `monitored` at the last validation.
    """

    def __init__(self, config: ExperimentConfig) -> None:
        """Opens the data and builds the model with its initial weights.

        Args:
            config: a valid configuration, with its derived values filled in (`ExperimentConfig.resolve`).

        Raises:
            UserError: if the data is missing, unusable, or too small for the flags.
        """
        self.strategy = make_strategy(config)
        self.workers = workers_of(config, self.strategy)
        parts.prepare_tensorflow(config)
        self.config = config
        # Before the data, so that a wrong layer or file is found without waiting for that.
        with scope_of(self.strategy):
            self.model = parts.make_model(config)
        self._synchronize_batch_norm()
        if config.model.initial_weights is not None:
            load_initial_weights(config.model.initial_weights, self.model)
        self.task: Task = load_task(config.data)
        with scope_of(self.strategy):
            self.loss = parts.make_loss(config, self.task.train.num_classes)
        self.monitored_embeddings = np.zeros((0, config.model.embedding_size), np.float32)
        self.inference = parts.make_inference(config, self.model)
        evaluated = parts.evaluated_model(config, self.model)
        embed = self.inference if evaluated is self.model else parts.make_inference(config, evaluated)
        self.embedder = Embedder(embed, parts.normalization(config), self.workers)
        self.blocks = SmallerBlocks(config.evaluation.evaluation_batch_size)
        self._validation = self._validation_scorer()

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
        """Scores the model, or another embedder, on the test classes; without the PCA of the final test."""
        return self._evaluate(embedder or self.embedder, self.task.test, self.task.gallery)

    def evaluate_validation(self) -> Evaluation | None:
        """Scores the model on the held-out training classes; None if there are none."""
        if self._validation is None:
            return None
        return self._validation.score(self._validation.embed(self.embedder))

    def evaluate_frozen_features(self) -> Evaluation:
        """Scores the pooled features of the backbone as it is now, at unit length, on the test classes."""
        features = parts.evaluated_model(self.config, feature_model(self.model))
        return self.evaluate_test(Embedder(features, _BASELINE_NORMALIZATION, self.workers))

    def _validation_scorer(self) -> Scorer | None:
        """Scores the same images every epoch, so it may keep them."""
        images, megabytes = self.task.validation, self.config.evaluation.validation_cache_mb
        if images is None:
            return None
        return Scorer(self.config, images, blocks=self.blocks, kept_megabytes=megabytes, workers=self.workers)

    def _evaluate(
        self, embedder: Embedder, queries: ImageCollection, gallery: ImageCollection | None = None
    ) -> Evaluation:
        scorer = Scorer(self.config, queries, gallery, blocks=self.blocks, workers=self.workers)
        return scorer.score(scorer.embed(embedder))

    def make_trainer(
        self, directory: RunDirectory, callbacks: Sequence[tf.keras.callbacks.Callback]
    ) -> Trainer:
        """Everything that trains the model, with its state in the run directory."""
        config, training = self.config, self.config.training
        if training.jit_compile:
            if not tf.config.list_logical_devices("GPU"):
                warn("--jit_compile: on a CPU, XLA makes convolutional backbones slower")
            use_up_xla_notice()
        has_scores = self.monitored is not None
        projections = parts.make_projections(
            config, self.model, self.inference, self.loss, self.task.train, self.blocks, self.workers
        )
        restored = [*self.model.variables, *self.loss.variables] if training.restore_best else []
        with scope_of(self.strategy):
            optimizer = parts.make_optimizer_groups(training, self.model, self.loss)
            transforms = parts.make_transforms(training, self.model, projections)
        return Trainer(
            self.model,
            self.loss,
            optimizer,
            make_batches(config, self.task.train, self.strategy),
            steps_per_epoch=training.steps_per_epoch,
            transforms=transforms,
            validate=self.validation_scores if has_scores else None,
            schedule=parts.make_schedule(training),
            stopping=EarlyStopping(restored, patience=training.patience or None, monitor=training.monitor)
            if has_scores
            else None,
            projections=projections,
            warm_up=parts.make_warm_up(training, self.model),
            saver=make_saver(config, directory, self.workers),
            guard=FiniteGuard(training.nan_policy),
            callbacks=callbacks,
            jit_compile=training.jit_compile,
            strategy=self.strategy,
            workers=self.workers,
            **({} if training.chunk_size is None else {"chunk_size": training.chunk_size}),
        )

    def _synchronize_batch_norm(self) -> None:
        if self.strategy is None or self.strategy.num_replicas_in_sync == 1:
            return
        if synchronize_batch_norm(self.model) and self.config.training.jit_compile:
            raise UserError(
                f"--jit_compile contradicts --strategy={self.config.run.strategy}, as --backbone="
                f"{self.config.model.backbone} trains its batch normalisation: what replicas exchange inside "
                "the model cannot be compiled; expected --nojit_compile, or pretrained weights and "
                "--freeze_batch_norm"
            )

    def validation_scores(self) -> dict[str, float]:
        """Scores the model on the `monitored` images, whose embeddings are kept."""
        evaluation = self.evaluate_test() if self._monitors_test else self.evaluate_validation()
        assert evaluation is not None
        self.monitored_embeddings = evaluation.embeddings
        return {**evaluation.result.scalars(), "mean_cosine": mean_cosine(evaluation.embeddings)}
