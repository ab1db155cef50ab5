"""Files of backbone weights: npz files of plain arrays, and a safety check for HDF5 files."""

from __future__ import annotations

import contextlib
import os
import zipfile
from collections.abc import Iterator, Mapping
from pathlib import Path

import h5py
import numpy as np
import numpy.typing as npt
import tensorflow as tf

Arrays = dict[str, npt.NDArray[np.float32]]

CLASSIFIER = "classifier/"
# Where normalisation is trained, it is a layer of its own, <layer>_norm, and depthwise kernels
# have another name. A file has the arrays of both under <layer>.
_NAMES_IN_FILES = {"_norm/": "/", "/depthwise_kernel": "/kernel"}

# In bytes of all arrays of a file, several times those of any network here with the state of its optimizer. A
# small file may declare, or unpack to, any number.
LARGEST_CONTENT = 2**30
# Filters that are part of HDF5. For any other, HDF5 loads and runs a plug-in.
_BUILT_IN_FILTERS = range(1, 256)


def read_arrays(path: str | os.PathLike[str]) -> Arrays:
    """Reads the arrays of a weights file.

    Args:
        path: an npz file with arrays named `<layer>/<weight>`, of any float type.

    Returns:
        float32 arrays by name.

    Raises:
        FileNotFoundError: if the file does not exist.
        ValueError: if it is not such a file, or has more than `LARGEST_CONTENT` bytes of arrays.
    """
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"weights file {path.name} is missing; expected in {path.parent}")
    with reading(f"{path} cannot be read as a weights file; expected an npz file"):
        with zipfile.ZipFile(path) as archive:
            content = sum(member.file_size for member in archive.infolist())
        if content > LARGEST_CONTENT:
            raise ValueError(f"it unpacks to {content:,} bytes; expected at most {LARGEST_CONTENT:,}")
        with np.load(path, allow_pickle=False) as file:
            return {name: _as_float32(name, file[name]) for name in file.files}


def _as_float32(name: str, array: npt.NDArray[np.generic]) -> npt.NDArray[np.float32]:
    if not np.issubdtype(array.dtype, np.floating):
        raise ValueError(f"{name} has the type {array.dtype}; expected a float type")
    return array.astype(np.float32)


@contextlib.contextmanager
def reading(problem: str) -> Iterator[None]:
    """Context that turns any error into a `ValueError` of one line: the problem, and the reason.

    Damaged files lead NumPy, h5py and Keras to errors of many types.
    """
    try:
        yield
    except Exception as error:
        reason = " ".join(str(error).strip().split("\n", 1)[0].split())
        raise ValueError(f"{problem}: {reason or type(error).__name__}") from error


def load_weights(model: tf.keras.Model, path: str | os.PathLike[str]) -> None:
    """Sets all weights of a model from a weights file; a classifier in the file is ignored.

    Args:
        model: a model whose variables are named `<layer>/<weight>`.
        path: the file.

    Raises:
        FileNotFoundError: if the file does not exist.
        ValueError: if it is not a weights file, or has other names or shapes than the model.
    """
    assign_arrays(model, read_arrays(path), path)


def assign_arrays(
    model: tf.keras.Model, arrays: Mapping[str, npt.NDArray[np.float32]], source: str | os.PathLike[str]
) -> None:
    """Sets all weights of a model from arrays; see `load_weights`.

    Args:
        model: a model whose variables are named `<layer>/<weight>`.
        arrays: arrays by `<layer>/<weight>`; those of a classifier are ignored.
        source: origin of the arrays, for messages.

    Raises:
        ValueError: if names or shapes differ from those of the model, which is not changed then.
    """
    arrays = {name: array for name, array in arrays.items() if not name.startswith(CLASSIFIER)}
    variables = {_name_in_file(name, arrays): variable for name, variable in _variables(model).items()}
    if arrays.keys() != variables.keys():
        missing, unknown = sorted(variables.keys() - arrays.keys()), sorted(arrays.keys() - variables.keys())
        raise ValueError(
            f"{source} does not belong to the model {model.name!r}: "
            f"{len(missing)} arrays are missing {missing[:3]}, {len(unknown)} are unknown {unknown[:3]}"
        )
    for name, variable in variables.items():
        if arrays[name].shape != tuple(variable.shape):
            raise ValueError(
                f"{source}: {name} has the shape {arrays[name].shape}; expected {tuple(variable.shape)}"
            )
    for name, variable in variables.items():
        variable.assign(arrays[name])


def save_weights(model: tf.keras.Model, path: str | os.PathLike[str]) -> None:
    """Writes all weights of a model to an npz file that `load_weights` reads.

    Args:
        model: a model whose variables are named `<layer>/<weight>`.
        path: the file, whose name ends in `.npz`.
    """
    np.savez(path, **{name: variable.numpy() for name, variable in _variables(model).items()})


def _variables(model: tf.keras.Model) -> dict[str, tf.Variable]:
    return {variable.name.split(":")[0]: variable for variable in model.weights}


def _name_in_file(name: str, arrays: Mapping[str, npt.NDArray[np.float32]]) -> str:
    if name in arrays:
        return name
    other = name
    for in_model, in_file in _NAMES_IN_FILES.items():
        other = other.replace(in_model, in_file)
    return other if other in arrays else name


def check_hdf5(path: str | os.PathLike[str]) -> None:
    """Checks an HDF5 file before Keras reads it.

    HDF5 files can contain links to other files, and arrays that are stored in other files, which a reader
    opens by itself.

    Raises:
        OSError: if it is not an HDF5 file.
        ValueError: if it contains a link, an array in another file, an array that needs a plug-in, or more
            than `LARGEST_CONTENT` bytes of arrays.
    """
    seen: set[int] = set()
    content = 0
    with h5py.File(path, "r") as file:
        groups: list[h5py.Group] = [file]
        while groups:
            group = groups.pop()
            for name in group:
                where = f"{group.name.rstrip('/')}/{name}"
                if not isinstance(group.get(name, getlink=True), h5py.HardLink):
                    raise ValueError(f"{where} is a link; expected groups and arrays only")
                item = group[name]
                address = h5py.h5o.get_info(item.id).addr
                # Hard links can make circles.
                if isinstance(item, h5py.Group) and address not in seen:
                    groups.append(item)
                elif isinstance(item, h5py.Dataset):
                    content += item.nbytes
                    _check_array(item, where, content)
                seen.add(address)


def _check_array(array: h5py.Dataset, where: str, content: int) -> None:
    if array.is_virtual or array.external:
        raise ValueError(f"{where} lies in another file; expected arrays in this file only")
    if content > LARGEST_CONTENT:
        raise ValueError(
            f"{where} says it has {array.nbytes:,} bytes, and {content:,} with the arrays before it; "
            f"expected at most {LARGEST_CONTENT:,}"
        )
    properties = array.id.get_create_plist()
    filters = [properties.get_filter(index)[0] for index in range(properties.get_nfilters())]
    foreign = [number for number in filters if number not in _BUILT_IN_FILTERS]
    if foreign:
        raise ValueError(f"{where} needs a plug-in of HDF5 (filter {foreign[0]}); expected none")
