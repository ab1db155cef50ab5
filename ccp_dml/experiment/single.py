"""A single run: training, the final test, the SavedModel."""

from __future__ import annotations

import os
import time
from typing import Any

from ccp_dml import environment
from ccp_dml.config import ExperimentConfig
from ccp_dml.data.collection import fingerprint
from ccp_dml.distributed.cluster import is_chief
from ccp_dml.errors import UserError
from ccp_dml.evaluation.report import format_table
from ccp_dml.experiment.build import Run, build, build_trainer
from ccp_dml.experiment.endings import resumable
from ccp_dml.experiment.finished import export_model
from ccp_dml.experiment.monitors import Monitors
from ccp_dml.experiment.scoring import UnusableEmbeddings, write_embeddings
from ccp_dml.experiment.weights import save_weights
from ccp_dml.run_directory import RunDirectory
from ccp_dml.training.checkpoints import CheckpointError, Checkpoints
from ccp_dml.training.finite import Diverged
from ccp_dml.training.trainer import Trainer


def train(config: ExperimentConfig, group: RunDirectory | None = None) -> dict[str, Any]:
    """Trains or continues one run, evaluates its best weights on the test classes, and exports them.

    Args:
        config: a valid and complete configuration of a single run.
        group: the folder of the group that the run belongs to; its report needs the embeddings of the run.

    Returns:
        The content of `results.json`.

    Raises:
        UserError: if data or run directory cannot be used, or the loss diverges.
        Interrupted: on Ctrl-C or SIGTERM; the same flags continue the run.
    """
    started = time.monotonic()
    directory = RunDirectory.of(config)
    directory.check(config, writes=is_chief(config.devices, os.environ))
    run = build(config)
    with resumable(group or directory, run.workers):
        is_continued = _begin(run, directory)
        print(f"{directory.path}: {'continuing' if is_continued else 'new run'}; {run.task}", flush=True)

        # The baseline: the features of the backbone before training.
        frozen_features = run.evaluate_frozen_features().result.means()
        print(format_table({"frozen features, test": frozen_features}), flush=True)

        # Training, which ends with the best weights.
        monitors = Monitors(run, directory)
        trainer = monitors.trainer = build_trainer(run, directory, monitors.callbacks)
        fit(trainer, config, directory)
        print(trainer.wall_time, flush=True)
        save_weights(directory, run.model, run.loss, run.workers)

        # The final test, and the SavedModel.
        embedded = run.test.embed(run.embedder)
        projection = run.test.fit(embedded)
        if run.workers.is_chief:
            if group is not None:
                write_embeddings(directory, embedded)
            export_model(config, run.model, directory.saved_model, projection, overwrite=True)
        test = run.test.score(embedded, projection)
        validation = None if run.validation is None else run.validation.evaluate(run.embedder)

        results: dict[str, Any] = {
            "test": test.result.means(),
            "validation": None if validation is None else validation.result.means(),
            "config": config.to_dict(),
            "versions": environment.versions(),
            "data": run.task.summary(),
            "frozen_features": frozen_features,
            "epochs": trainer.epoch,
            "steps": int(trainer.step),
            "best_epoch": trainer.best_epoch,
            "seconds": round(time.monotonic() - started, 1),
            "time_shares": {name: round(share, 4) for name, share in trainer.wall_time.shares().items()},
        }
        if run.workers.is_chief:
            monitors.finish(test)
            directory.finish(results)
        # To the chief, a worker that ends earlier would look like one that failed.
        run.workers.from_chief(None)
    print(format_table({"frozen features": frozen_features, config.loss.loss: results["test"]}))
    print(f"results: {directory.results}\nSavedModel: {directory.saved_model}", flush=True)
    return results


def fit(trainer: Trainer, config: ExperimentConfig, directory: RunDirectory) -> None:
    """Trains from the newest checkpoint on, if there is one.

    Raises:
        UserError: if the checkpoint does not fit, or numbers are not finite.
    """
    flags = f"--learning_rate={config.optimizer.learning_rate:g} --nan_policy={config.training.nan_policy}"
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


def _begin(run: Run, directory: RunDirectory) -> bool:
    """Lets the chief prepare the run directory; returns True if an unfinished run is continued there."""
    data, workers = fingerprint(run.task.collections), run.workers
    if any(other != data for other in workers.from_all(data)):
        dataset = run.config.source.dataset
        raise UserError(f"--dataset={dataset}: the workers have different data; expected the same on all")
    if not workers.is_chief:
        return workers.from_chief(False)
    is_continued = directory.begin(run.config)
    directory.record_data(data)
    return workers.from_chief(is_continued)
