"""A single run: training, the final test, the SavedModel, and the messages of runs that end early."""

from __future__ import annotations

import contextlib
import errno
import os
import time
from collections.abc import Iterator
from typing import Any

import tensorflow as tf

from ccp_dml import environment
from ccp_dml.commands import warn
from ccp_dml.config import ExperimentConfig
from ccp_dml.distributed.cluster import is_chief
from ccp_dml.distributed.workers import Workers
from ccp_dml.errors import Interrupted, UserError
from ccp_dml.evaluation.report import format_table
from ccp_dml.experiment.build import Run, build, build_trainer
from ccp_dml.experiment.finished import export_model
from ccp_dml.experiment.model import devices_in_words, save_weights
from ccp_dml.experiment.monitors import Monitors
from ccp_dml.experiment.scoring import UnusableEmbeddings, write_embeddings
from ccp_dml.losses import registry
from ccp_dml.run_directory import RunDirectory
from ccp_dml.training.checkpoints import CheckpointError, Checkpoints, TrainingInterrupted
from ccp_dml.training.finite import Diverged
from ccp_dml.training.trainer import Trainer

# Python and TensorFlow have different types for a full disk; the words are the same.
_FULL_DISK = tuple(os.strerror(number) for number in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG))
# Start of the message of an exchange between workers that was cut off, whatever the reason.
_LOST_WORKER = "Collective ops is aborted by"


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
        is_continued = _begin(run, directory, group)
        begun = "continuing" if is_continued else "new run"
        print(f"{directory.path}: {begun} on {devices_in_words()}; {run.task}", flush=True)

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
            "config": config.to_dict() | registry.values(config.loss.loss, run.loss),
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
    if trainer.epoch and results["test"]["map_at_r"] <= frozen_features["map_at_r"]:
        warn(
            "training has not improved MAP@R over the frozen features; docs/troubleshooting.md says what to "
            f"try, such as --learning_rate={config.optimizer.learning_rate / 3:.1g} or a larger --image_size"
        )
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


def _begin(run: Run, directory: RunDirectory, group: RunDirectory | None) -> bool:
    """Lets the chief prepare the run directory; returns True if a run is continued there."""
    data, workers = run.task.dataset.fingerprint(), run.workers
    if any(other != data for other in workers.from_all(data)):
        dataset = run.config.source.dataset
        raise UserError(f"--dataset={dataset}: the workers have different data; expected the same on all")
    if not workers.is_chief:
        return workers.from_chief(False)
    if group is not None:
        group.check_data(data)
    is_continued = directory.begin(run.config)
    directory.record_data(data)
    return workers.from_chief(is_continued)


@contextlib.contextmanager
def resumable(directory: RunDirectory, workers: Workers) -> Iterator[None]:
    """Context that explains interruptions, full disks and lost run directories.

    Args:
        directory: the folder of the run or of its group.
        workers: the processes that train it.

    Raises:
        Interrupted: on Ctrl-C or SIGTERM.
        UserError: if the disk is full, the run directory was removed or became read-only, memory is short, or
            another worker ended.
    """
    same_flags = f"the same flags with --run_dir={directory.path} go on from"
    try:
        yield
    except TrainingInterrupted as stop:
        raise Interrupted(f"after step {stop.step}, saved; {same_flags} there") from stop
    except KeyboardInterrupt as stop:
        signal = str(stop) or "Ctrl-C"
        raise Interrupted(f"stopped by {signal}; {same_flags} the last checkpoint, if any") from stop
    except (OSError, tf.errors.OpError) as error:
        if workers.count > 1 and isinstance(error, tf.errors.OpError) and _LOST_WORKER in error.message:
            raise UserError(
                "--strategy=multi_worker: another worker has ended or cannot be reached, so this one, worker "
                f"{workers.index} of {workers.count}, stops; the message of the other tells why; the same "
                "command on all of them goes on from the last checkpoint, if any"
            ) from error
        problem = _problem(directory, error, writes=workers.is_chief)
        if problem is None:
            raise
        raise UserError(f"--run_dir={directory.path}: {problem}") from error


def _problem(directory: RunDirectory, error: Exception, writes: bool) -> str | None:
    """The problem of the disk, the memory, or the folder that this process writes to; None for others."""
    if any(words in str(error) for words in _FULL_DISK):
        reason = str(error).split("\n", 1)[0]
        return f"the disk is full; the same flags go on from the last checkpoint once there is room: {reason}"
    if isinstance(error, tf.errors.ResourceExhaustedError):  # The evaluation has a message of its own.
        return (
            "too little memory for a step of training; expected more of it, with which the same flags go on "
            "from the last checkpoint, or a new run with smaller batches or a smaller --image_size"
        )
    if not writes:
        return None
    if not directory.config.exists():
        return "it was removed or moved while the run was going on; expected it to stay"
    is_read_only = os.strerror(errno.EROFS) in str(error)
    if isinstance(error, PermissionError | tf.errors.PermissionDeniedError) or is_read_only:
        return "it cannot be written to any more; once it can, the same flags go on from the last checkpoint"
    if str(directory.path) in str(error):
        return f"it cannot be used: {str(error).splitlines()[0]}"
    return None
