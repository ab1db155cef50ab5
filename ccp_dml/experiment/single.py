"""One run: training, the final test, the SavedModel."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator
from typing import Any

from ccp_dml import environment
from ccp_dml.config import ExperimentConfig
from ccp_dml.errors import Interrupted, UserError
from ccp_dml.evaluation.report import format_table, results_dict
from ccp_dml.experiment.experiment import Experiment
from ccp_dml.experiment.exporting import export_model
from ccp_dml.experiment.monitors import Monitors
from ccp_dml.experiment.scoring import Scorer, write_embeddings
from ccp_dml.experiment.weights import save_weights
from ccp_dml.run_directory import RunDirectory
from ccp_dml.training import interruption as training_interruption
from ccp_dml.training.checkpoints import CheckpointError
from ccp_dml.training.trainer import Diverged, Trainer


def train(config: ExperimentConfig, group: RunDirectory | None = None) -> dict[str, Any]:
    """Trains, or continues, one run; evaluates its best weights on the test classes and exports them.

    Args:
        config: valid and complete, of a single run.
        group: the folder of the group that it is part of; then its embeddings are kept for the report.

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
    with resumable(group or directory):
        return _train(experiment, directory, started, keep_embeddings=group is not None)


def _train(
    experiment: Experiment, directory: RunDirectory, started: float, *, keep_embeddings: bool
) -> dict[str, Any]:
    config = experiment.config
    baseline = experiment.evaluate_frozen_features()
    print(format_table({"frozen features, test": baseline.result.means()}), flush=True)

    monitors = Monitors(experiment, directory)
    trainer = experiment.make_trainer(directory, monitors.callbacks)
    monitors.attach(trainer)
    fit(trainer, config, directory)
    save_weights(directory, experiment.model, experiment.loss)

    scorer = Scorer.of_test(config, experiment.task)
    embedded = scorer.embed(experiment.embedder)
    projection = scorer.fit(embedded)
    if keep_embeddings:
        write_embeddings(directory, embedded)
    export_model(config, experiment.model, directory.saved_model, projection, overwrite=True)
    test, validation = scorer.score(embedded, projection), experiment.evaluate_validation()
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


def fit(trainer: Trainer, config: ExperimentConfig, directory: RunDirectory) -> None:
    """Trains from the newest checkpoint on, if there is one.

    Raises:
        UserError: if the checkpoint does not fit, or the loss diverges.
    """
    try:
        trainer.restore()
        trainer.fit(config.training.max_epochs)
    except CheckpointError as error:
        raise UserError(f"--run_dir={directory.path}: {error}") from error
    except Diverged as error:
        raise UserError(f"--learning_rate={config.training.learning_rate:g}: {error}") from error


@contextlib.contextmanager
def resumable(directory: RunDirectory) -> Iterator[None]:
    """Says after an interruption how the run, or the group of runs, goes on."""
    same_flags = f"the same flags with --run_dir={directory.path} go on from"
    try:
        yield
    except training_interruption.Interrupted as stop:
        raise Interrupted(f"after step {stop.step}, saved; {same_flags} there") from stop
    except KeyboardInterrupt as stop:
        signal = str(stop) or "Ctrl-C"
        raise Interrupted(f"stopped by {signal}; {same_flags} the last checkpoint, if any") from stop
