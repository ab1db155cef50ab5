"""The commands: train, evaluate, export."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import tensorflow as tf

from ccp_dml import environment
from ccp_dml.config import ExperimentConfig
from ccp_dml.errors import Interrupted, UserError
from ccp_dml.evaluation.report import format_table, results_dict
from ccp_dml.experiment.experiment import Experiment
from ccp_dml.experiment.monitors import Monitors
from ccp_dml.run_directory import RunDirectory
from ccp_dml.training import interruption as training_interruption
from ccp_dml.training.checkpoints import CheckpointError
from ccp_dml.training.trainer import Diverged, Trainer


def train(config: ExperimentConfig) -> dict[str, Any]:
    """Trains, or continues, a run; evaluates its best weights on the test classes and exports them.

    Args:
        config: valid and complete.

    Returns:
        The content of `results.json`.

    Raises:
        UserError: if data or run directory cannot be used, or the loss diverges.
        Interrupted: on Ctrl-C or SIGTERM, if the same flags continue the run.
    """
    started = time.monotonic()
    directory = RunDirectory.of(config)
    directory.check(config)
    experiment = Experiment(config)
    continued = directory.begin(config)
    print(f"{directory.path}: {'continuing' if continued else 'new run'}; {experiment.task}", flush=True)
    with _resumable(directory):
        return _train(experiment, directory, started)


def _train(experiment: Experiment, directory: RunDirectory, started: float) -> dict[str, Any]:
    config = experiment.config
    baseline = experiment.evaluate_frozen_features()
    print(format_table({"frozen features, test": baseline.result.means()}), flush=True)

    monitors = Monitors(experiment, directory)
    trainer = experiment.make_trainer(directory, monitors.callbacks)
    monitors.attach(trainer)
    _fit(trainer, config, directory)
    experiment.save_weights(directory)
    experiment.export(directory.saved_model, overwrite=True)

    test, validation = experiment.evaluate_test(), experiment.evaluate_validation()
    results = results_dict(
        test.result.means(),
        None if validation is None else validation.result.means(),
        config.to_dict(),
        environment.versions(),
        data=experiment.task.summary(),
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
    except CheckpointError as error:
        raise UserError(f"--run_dir={directory.path}: {error}") from error
    except Diverged as error:
        raise UserError(f"--learning_rate={config.training.learning_rate:g}: {error}") from error


@contextlib.contextmanager
def _resumable(directory: RunDirectory) -> Iterator[None]:
    """Says after an interruption how the run goes on."""
    same_flags = f"the same flags with --run_dir={directory.path} go on from"
    try:
        yield
    except training_interruption.Interrupted as stop:
        raise Interrupted(f"after step {stop.step}, saved; {same_flags} there") from stop
    except KeyboardInterrupt as stop:
        signal = str(stop) or "Ctrl-C"
        raise Interrupted(f"stopped by {signal}; {same_flags} the last checkpoint, if any") from stop


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
    try:
        experiment.export(folder, overwrite=folder.is_dir() and not any(folder.iterdir()))
    except (OSError, tf.errors.OpError) as error:
        reason = error.strerror if isinstance(error, OSError) else error.message
        raise UserError(f"--output={output}: cannot be written: {reason}") from error
    print(f"SavedModel: {output}", flush=True)


def _finished(run_dir: str) -> tuple[Experiment, ExperimentConfig]:
    directory = RunDirectory(run_dir)
    config = directory.read_config()
    directory.read_results()
    experiment = Experiment(config, initial_weights=False)
    experiment.load_weights(directory)
    return experiment, config
