"""Reading a backbone's weights from an npz file of plain arrays."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import numpy.typing as npt
import tensorflow as tf

CLASSIFIER = "classifier/"


def read_arrays(path: str | os.PathLike[str]) -> dict[str, npt.NDArray[np.float32]]:
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
    arrays = {name: array for name, array in read_arrays(path).items() if not name.startswith(CLASSIFIER)}
    variables = {variable.name.split(":")[0]: variable for variable in model.weights}
    if arrays.keys() != variables.keys():
        missing, unknown = sorted(variables.keys() - arrays.keys()), sorted(arrays.keys() - variables.keys())
        raise ValueError(
            f"{path} does not belong to the model {model.name!r}: "
            f"{len(missing)} arrays are missing {missing[:3]}, {len(unknown)} are unknown {unknown[:3]}."
        )
    for name, variable in variables.items():
        if arrays[name].shape != tuple(variable.shape):
            raise ValueError(
                f"{path}: {name} has the shape {arrays[name].shape}; {tuple(variable.shape)} is expected."
            )
        variable.assign(arrays[name])
