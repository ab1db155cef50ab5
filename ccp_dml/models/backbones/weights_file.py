"""A backbone's weights as an npz file of plain arrays."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import numpy.typing as npt
import tensorflow as tf

CLASSIFIER = "classifier/"
# Where normalisation is trained, layers are those of Keras: a normalisation <layer>_norm, whose arrays a file
# keeps with <layer>, and depthwise convolutions, whose kernels have a name of their own.
_OWN_NAMES = {"_norm/": "/", "/depthwise_kernel": "/kernel"}

Arrays = dict[str, npt.NDArray[np.float32]]


def read_arrays(path: str | os.PathLike[str]) -> Arrays:
    """Reads the arrays of a weights file.

    Args:
        path: an npz file with arrays named `<layer>/<weight>`, of any float type.

    Returns:
        float32 arrays by name.

    Raises:
        FileNotFoundError: if there is no such file.
        ValueError: if it is not such a file.
    """
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"The weights file {path.name} is missing; it is expected in {path.parent}.")
    try:
        with np.load(path, allow_pickle=False) as file:
            return {name: file[name].astype(np.float32) for name in file.files}
    except Exception as error:
        raise ValueError(
            f"{path} cannot be read as a weights file ({error}); an npz file is expected."
        ) from error


def load_weights(model: tf.keras.Model, path: str | os.PathLike[str]) -> None:
    """Sets every weight of a model from a weights file.

    The file may hold a classifier beside, which is ignored.

    Args:
        model: a model whose variables are named `<layer>/<weight>`.
        path: the file.

    Raises:
        FileNotFoundError: if there is no such file.
        ValueError: if it is not a weights file, or its names or shapes are not those of the model.
    """
    assign_arrays(model, read_arrays(path), path)


def assign_arrays(
    model: tf.keras.Model, arrays: Mapping[str, npt.NDArray[np.float32]], source: str | os.PathLike[str]
) -> None:
    """Sets every weight of a model from arrays; see `load_weights`.

    Args:
        model: a model whose variables are named `<layer>/<weight>`.
        arrays: by `<layer>/<weight>`, those of a classifier left aside.
        source: where they come from, for messages.

    Raises:
        ValueError: if names or shapes are not those of the model; nothing is changed then.
    """
    arrays = {name: array for name, array in arrays.items() if not name.startswith(CLASSIFIER)}
    variables = {_array_name(name, arrays): variable for name, variable in _variables(model).items()}
    if arrays.keys() != variables.keys():
        missing, unknown = sorted(variables.keys() - arrays.keys()), sorted(arrays.keys() - variables.keys())
        raise ValueError(
            f"{source} does not belong to the model {model.name!r}: "
            f"{len(missing)} arrays are missing {missing[:3]}, {len(unknown)} are unknown {unknown[:3]}."
        )
    for name, variable in variables.items():
        if arrays[name].shape != tuple(variable.shape):
            raise ValueError(
                f"{source}: {name} has the shape {arrays[name].shape}; {tuple(variable.shape)} is expected."
            )
    for name, variable in variables.items():
        variable.assign(arrays[name])


def save_weights(model: tf.keras.Model, path: str | os.PathLike[str]) -> None:
    """Writes every weight of a model to an npz file that `load_weights` reads.

    Args:
        model: a model whose variables are named `<layer>/<weight>`.
        path: the file, whose name ends in `.npz`.
    """
    np.savez(path, **{name: variable.numpy() for name, variable in _variables(model).items()})


def _variables(model: tf.keras.Model) -> dict[str, tf.Variable]:
    return {variable.name.split(":")[0]: variable for variable in model.weights}


def _array_name(name: str, arrays: Mapping[str, npt.NDArray[np.float32]]) -> str:
    if name in arrays:
        return name
    shared = name
    for theirs, ours in _OWN_NAMES.items():
        shared = shared.replace(theirs, ours)
    return shared if shared in arrays else name
