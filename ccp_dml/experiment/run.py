"""The commands: train, evaluate, export."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow as tf

from ccp_dml import environment
from ccp_dml.commands import warn
from ccp_dml.config import ExperimentConfig
from ccp_dml.errors import Interrupted, UserError, as_user_errors
from ccp_dml.evaluation.embedding import Embedder, Evaluation, evaluate_images
from ccp_dml.evaluation.report import format_table, results_dict
from ccp_dml.experiment import parts
from ccp_dml.experiment.monitors import Monitors
from ccp_dml.experiment.task import Task, labeled_images, load_task
from ccp_dml.models.embedding_model import feature_model
from ccp_dml.run_directory import RunDirectory
from ccp_dml.serving.export import export_saved_model
from ccp_dml.training import interruption as training_interruption
from ccp_dml.training.checkpoints import CheckpointError, Checkpoints
from ccp_dml.training.stopping import EarlyStopping
from ccp_dml.training.trainer import Diverged, Trainer

_BASELINE_NORMALIZATION = "unit"


class Experiment:
    """Data, model and loss of one run, and how the model is scored.

    Attributes:
        config: the complete configuration.
        task: the image collections.
        model: the embedding model.
        loss: the loss.
        inference: the model in inference mode, compiled once.
        validation_embeddings: float32 [N, D], those of the last validation.
    """

    def __init__(self, config: ExperimentConfig) -> None:
        """Opens the data and builds the model with its initial weights.

        Args:
            config: a valid configuration, with its derived values filled in (`ExperimentConfig.resolve`).

        Raises:
            UserError: if the data is missing, unusable, or too small for the flags.
        """
        tf.keras.utils.set_random_seed(config.run.seed)
        tf.keras.mixed_precision.set_global_policy(config.training.mixed_precision)
        # A GPU would round the factors of float32 products to 10 bits, distances included.
        tf.config.experimental.enable_tensor_float_32_execution(False)
        if config.training.jit_compile and not tf.config.list_logical_devices("GPU"):
            warn("--jit_compile: on a CPU, XLA makes convolutional backbones many times slower")
        self.config = config
        self.task: Task = load_task(config.data)
        self.model = parts.make_model(config)
        self.loss = parts.make_loss(config, self.task.train.num_classes)
        self.validation_embeddings = np.zeros((0, config.model.embedding_size), np.float32)
        self.inference = parts.make_inference(config, self.model)
        self._embedder = Embedder(self.inference, config.loss.normalization)

    def evaluate_test(self, embedder: Embedder | None = None) -> Evaluation:
        """Scores the model, or another embedder, on the test classes."""
        return self._evaluate(embedder or self._embedder, self.task.test, self.task.gallery)

    def evaluate_validation(self) -> Evaluation | None:
        """Scores the model on what `--monitor_split` names; None if no class is held out."""
        if self.config.training.monitor_split == "test":
            return self.evaluate_test()
        return None if self.task.validation is None else self._evaluate(self._embedder, self.task.validation)

    def evaluate_frozen_features(self) -> Evaluation:
        """Scores the pooled features of the backbone as it is now, at unit length, on the test classes."""
        return self.evaluate_test(Embedder(feature_model(self.model), _BASELINE_NORMALIZATION))

    def _evaluate(self, embedder: Embedder, queries: Any, gallery: Any = None) -> Evaluation:
        flags, preprocessing = self.config.evaluation, parts.test_preprocessing(self.config.data)
        images = [
            None if part is None else labeled_images(part, preprocessing, flags.evaluation_batch_size)
            for part in (queries, gallery)
        ]
        assert images[0] is not None
        try:
            return evaluate_images(
                embedder,
                images[0],
                images[1],
                recall_at=flags.recall_at,
                precision_at=flags.precision_at,
                map_at=flags.map_at,
            )
        except ValueError as error:
            raise UserError(f"--dataset={self.config.data.dataset} cannot be evaluated: {error}") from error

    def make_trainer(self, directory: RunDirectory, monitors: Monitors) -> Trainer:
        """Everything that trains the model, with its state in the run directory."""
        config, training = self.config, self.config.training
        has_scores = self.task.validation is not None or training.monitor_split == "test"
        projections = parts.make_projections(config, self.model, self.inference, self.loss, self.task.train)
        trainer = Trainer(
            self.model,
            self.loss,
            parts.make_optimizer_groups(training, self.model, self.loss),
            parts.make_batches(config, self.task.train),
            steps_per_epoch=training.steps_per_epoch,
            transforms=parts.make_transforms(training, self.model, projections),
            validate=self._validation_scores if has_scores else None,
            schedule=parts.make_schedule(training),
            stopping=EarlyStopping(
                [*self.model.variables, *self.loss.variables],
                patience=training.patience or None,
                monitor=training.monitor,
            )
            if has_scores and training.restore_best
            else None,
            projections=projections,
            warm_up=parts.make_warm_up(training, self.model),
            checkpoints=Checkpoints(directory.checkpoints, keep=config.run.checkpoint_keep),
            callbacks=monitors.callbacks,
            jit_compile=training.jit_compile,
            **({} if training.chunk_size is None else {"chunk_size": training.chunk_size}),
        )
        monitors.attach(trainer)
        return trainer

    def _validation_scores(self) -> dict[str, float]:
        evaluation = self.evaluate_validation()
        assert evaluation is not None
        self.validation_embeddings = evaluation.embeddings
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
        try:
            self._weights().read(str(path)).assert_existing_objects_matched().expect_partial()
        except (tf.errors.OpError, AssertionError, ValueError) as error:
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
            normalization=self.config.loss.normalization,
            overwrite=overwrite,
        )


def train(config: ExperimentConfig) -> dict[str, Any]:
    """Trains, or continues, a run; evaluates its best weights on the test classes and exports them.

    Args:
        config: valid and complete.

    Returns:
        The content of `results.json`.

    Raises:
        UserError: if data or run directory cannot be used, or the loss diverges.
        Interrupted: on Ctrl-C or SIGTERM, after the state was saved.
    """
    started = time.monotonic()
    directory = RunDirectory.of(config)
    directory.check(config)
    experiment = Experiment(config)
    continued = directory.begin(config)
    print(f"{directory.path}: {'continuing' if continued else 'new run'}; {experiment.task}", flush=True)
    baseline = experiment.evaluate_frozen_features()
    print(format_table({"frozen features, test": baseline.result.means()}), flush=True)

    monitors = Monitors(experiment, directory)
    trainer = experiment.make_trainer(directory, monitors)
    _fit(trainer, config, directory)
    experiment.save_weights(directory)
    experiment.export(directory.saved_model, overwrite=True)

    test, validation = experiment.evaluate_test(), experiment.evaluate_validation()
    results = results_dict(
        test.result.means(),
        None if validation is None else validation.result.means(),
        config.to_dict(),
        environment.versions(),
        frozen_features=baseline.result.means(),
        epochs=trainer.epoch,
        steps=int(trainer.step),
        best_epoch=trainer.best_epoch,
        seconds=round(time.monotonic() - started, 1),
    )
    monitors.finish(test)
    directory.finish(results)
    print(format_table({"frozen features": results["frozen_features"], config.loss.loss: results["test"]}))
    print(f"results: {directory.results}\nSavedModel: {directory.saved_model}", flush=True)
    return results


def _fit(trainer: Trainer, config: ExperimentConfig, directory: RunDirectory) -> None:
    try:
        trainer.restore()
        trainer.fit(config.training.max_epochs)
    except (CheckpointError, Diverged) as error:
        raise UserError(f"--run_dir={directory.path}: {error}") from error
    except training_interruption.Interrupted as stop:
        raise Interrupted(
            f"after step {stop.step}, saved; the same flags with --run_dir={directory.path} go on from there"
        ) from stop


def evaluate(run_dir: str) -> dict[str, Any]:
    """Repeats the test evaluation of a finished run and prints it.

    Returns:
        The means of the test metrics.

    Raises:
        UserError: if the folder holds no finished run.
    """
    experiment, config = _finished(run_dir)
    means = experiment.evaluate_test().result.means()
    print(format_table({config.loss.loss: means}), flush=True)
    return means


def export(run_dir: str, output: str) -> None:
    """Exports the model of a finished run.

    Args:
        run_dir: folder of the run.
        output: folder to write; new or empty.

    Raises:
        UserError: if the folder holds no finished run, or `output` exists and is not empty.
    """
    experiment, _ = _finished(run_dir)
    folder = Path(output)
    with as_user_errors():
        experiment.export(folder, overwrite=folder.is_dir() and not any(folder.iterdir()))
    print(f"SavedModel: {output}", flush=True)


def _finished(run_dir: str) -> tuple[Experiment, ExperimentConfig]:
    directory = RunDirectory(run_dir)
    config = directory.read_config()
    directory.read_results()
    experiment = Experiment(config)
    experiment.load_weights(directory)
    return experiment, config


def _weights_path(directory: RunDirectory) -> Path:
    return directory.checkpoints / "best"
