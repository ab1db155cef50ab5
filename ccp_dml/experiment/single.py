"""One run: training, the final test, the SavedModel."""

from __future__ import annotations

import time
from typing import Any

from ccp_dml import environment
from ccp_dml.config import ExperimentConfig
from ccp_dml.data.collection import fingerprint
from ccp_dml.errors import UserError
from ccp_dml.evaluation.report import format_table, results_dict
from ccp_dml.experiment.endings import resumable
from ccp_dml.experiment.experiment import Experiment
from ccp_dml.experiment.exporting import export_model
from ccp_dml.experiment.monitors import Monitors, test_tracking
from ccp_dml.experiment.scoring import Scorer, UnusableEmbeddings, write_embeddings
from ccp_dml.experiment.weights import save_weights
from ccp_dml.run_directory import RunDirectory
from ccp_dml.training.checkpoints import CheckpointError, Checkpoints
from ccp_dml.training.finite import Diverged
from ccp_dml.training.trainer import Trainer


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
    directory.check(config, writes=config.writes)
    experiment = Experiment(config)
    workers = experiment.workers
    with resumable(group or directory, workers):
        continued = _begin(experiment, directory)
    print(f"{directory.path}: {'continuing' if continued else 'new run'}; {experiment.task}", flush=True)
    with resumable(group or directory, workers):
        return _train(experiment, directory, started, keep_embeddings=group is not None)


def _train(
    experiment: Experiment, directory: RunDirectory, started: float, *, keep_embeddings: bool
) -> dict[str, Any]:
    config = experiment.config
    baseline = experiment.evaluate_frozen_features()
    print(format_table({"frozen features, test": baseline.result.means()}), flush=True)

    workers = experiment.workers
    monitors = Monitors(experiment, directory) if workers.is_chief else None
    callbacks = test_tracking(experiment) if monitors is None else monitors.callbacks
    trainer = experiment.make_trainer(directory, callbacks)
    if monitors is not None:
        monitors.attach(trainer)
    fit(trainer, config, directory)
    print(trainer.wall_time, flush=True)
    save_weights(directory, experiment.model, experiment.loss, workers)

    scorer = Scorer.of_test(config, experiment.task, experiment.blocks, workers)
    embedded = scorer.embed(experiment.embedder)
    projection = scorer.fit(embedded)
    if keep_embeddings and workers.is_chief:
        write_embeddings(directory, embedded)
    if workers.is_chief:
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
        time_shares={part: round(share, 4) for part, share in trainer.wall_time.shares().items()},
    )
    if monitors is not None:
        monitors.finish(test)
        directory.finish(results)
    # A worker that has ended would look to the chief as if it had died.
    workers.from_chief(None)
    print(format_table({"frozen features": results["frozen_features"], config.loss.loss: results["test"]}))
    print(f"results: {directory.results}\nSavedModel: {directory.saved_model}", flush=True)
    return results


def _begin(experiment: Experiment, directory: RunDirectory) -> bool:
    """Prepares the run directory, the chief does; returns whether an unfinished run is continued."""
    config, workers = experiment.config, experiment.workers
    data = fingerprint(experiment.task.collections)
    if any(other != data for other in workers.from_all(data)):
        raise UserError(
            f"--dataset={config.data.dataset}: the workers have different data; expected the same on all"
        )
    if not workers.is_chief:
        return workers.from_chief(False)
    continued = directory.begin(config)
    directory.note_data(data)
    return workers.from_chief(continued)


def fit(trainer: Trainer, config: ExperimentConfig, directory: RunDirectory) -> None:
    """Trains from the newest checkpoint on, if there is one.

    Raises:
        UserError: if the checkpoint does not fit, or numbers are no longer finite.
    """
    flags = f"--learning_rate={config.training.learning_rate:g} --nan_policy={config.training.nan_policy}"
    try:
        trainer.restore()
        trainer.fit(config.training.max_epochs)
    except CheckpointError as error:
        raise UserError(f"--run_dir={directory.path}: {error}") from error
    except Diverged as error:
        raise UserError(f"{flags}: {error}") from error
    except UnusableEmbeddings as error:
        newest = Checkpoints(directory.checkpoints).latest
        kept = f"the last checkpoint is {newest}" if newest else "there is no checkpoint"
        raise UserError(
            f"{flags}: after step {int(trainer.step)} {error}; {kept}. Try a lower learning rate."
        ) from error
