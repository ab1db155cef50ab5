"""Weights of embedding models on disk."""

from __future__ import annotations

import os
from pathlib import Path

import tensorflow as tf

from ccp_dml import files
from ccp_dml.distributed.tables import gathered_tables
from ccp_dml.distributed.workers import Workers
from ccp_dml.errors import UserError
from ccp_dml.losses.base import MetricLoss
from ccp_dml.models.backbones.weights import check_hdf5
from ccp_dml.run_directory import RunDirectory

_BEST = "best"
_KERAS_FILES = (".h5", ".hdf5")
_ERRORS = (tf.errors.OpError, AssertionError, ValueError, IndexError, RuntimeError, OSError, KeyError)


def save_weights(directory: RunDirectory, model: tf.keras.Model, loss: MetricLoss, workers: Workers) -> None:
    """Writes the weights that are evaluated and exported; all workers call it, the chief writes."""
    checkpoint = tf.train.Checkpoint(model=model, loss=loss)
    with gathered_tables(checkpoint):
        if not workers.is_chief:
            return
        directory.checkpoints.mkdir(exist_ok=True)
        checkpoint.write(str(directory.checkpoints / _BEST))
        files.to_disk(directory.checkpoints)


def load_run_weights(directory: RunDirectory, model: tf.keras.Model) -> None:
    """Reads the weights of the model that `save_weights` wrote.

    Raises:
        UserError: if the file is missing or belongs to another model.
    """
    path = directory.checkpoints / _BEST
    try:
        _read_checkpoint(path, model)
    except _ERRORS as error:
        raise UserError(f"{path}: expected the weights of this run: {_reason(error)}") from error


def load_initial_weights(path: str, model: tf.keras.Model) -> None:
    """Reads weights of the complete embedding model, its linear head included.

    Args:
        path: the folder of a finished run, a TensorFlow checkpoint that holds a `model`, or an `.h5` file of
            Keras' `model.save_weights`.
        model: an embedding model of the same shape.

    Raises:
        UserError: if it cannot be read or belongs to another model.
    """
    try:
        if os.path.isdir(path):
            _read_checkpoint(RunDirectory(path).checkpoints / _BEST, model)
        elif path.endswith(_KERAS_FILES):
            check_hdf5(path)
            model.load_weights(path)
        else:
            _read_checkpoint(Path(path.removesuffix(".index")), model)
    except _ERRORS as error:
        raise UserError(
            f"--initial_weights={path}: expected weights of the same embedding model: {_reason(error)}"
        ) from error


def _read_checkpoint(path: Path, model: tf.keras.Model) -> None:
    status = tf.train.Checkpoint(model=model).read(str(path))
    status.assert_existing_objects_matched().expect_partial()


def _reason(error: BaseException) -> str:
    return str(error).strip().split("\n", 1)[0]
