"""Reads BN-Inception from the Keras model file that the authors of CCP publish, `BNInception.h5`.

Their code gives such a file to `tf.keras.models.load_model`, so it holds the architecture (JSON) and the
weights. The names of its layers are not documented, and are not used: the convolutions are ordered by the
graph, branches in the order of their concatenation, and each is checked by its shape. Models that their code
has trained, which contain the backbone as a layer, can be read too. No code in the file is executed.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from typing import Any

import h5py
import numpy as np
import tensorflow as tf

from ccp_dml.models.backbones.bn_inception_layout import EPSILON, Convolution, convolutions
from ccp_dml.models.backbones.weights import Arrays, assign_arrays, check_hdf5, reading

_CONVOLUTION, _NORM = "Conv2D", "BatchNormalization"
_KERAS_EPSILON = 1e-3


def load_bn_inception_h5(model: tf.keras.Model, path: str | os.PathLike[str]) -> None:
    """Sets the weights of the network from a Keras model file of the authors of CCP.

    Raises:
        ValueError: if it is not a Keras model file, or of another network.
    """
    assign_arrays(model, read_bn_inception(path), path)


def read_bn_inception(path: str | os.PathLike[str]) -> Arrays:
    """Reads the weights of the network.

    Args:
        path: a Keras HDF5 model file.

    Returns:
        float32 arrays by `<layer>/<weight>`, with the names of this library's network.

    Raises:
        ValueError: if it is not a Keras model file, or of another network.
    """
    with reading(f"{path} cannot be read as a Keras model file"):
        check_hdf5(path)
        with h5py.File(path, "r") as file:
            found = list(_convolutions(_layers(json.loads(file.attrs["model_config"]))))
            weights = _weights(file["model_weights"])
    expected = list(convolutions())
    if len(found) != len(expected):
        raise ValueError(
            f"{path} has {len(found)} convolutions with batch normalisation; BN-Inception has {len(expected)}"
        )
    arrays: Arrays = {}
    for layer, (convolution, norm) in zip(expected, found):
        arrays |= _unit(layer, weights, convolution, norm, path)
    return arrays


def _layers(config: dict[str, Any]) -> dict[str, dict[str, Any]]:
    """Finds the innermost model that has convolutions; returns its layers by name."""
    layers = config.get("config", {}).get("layers", [])
    if any(layer["class_name"] == _CONVOLUTION for layer in layers):
        return {layer["config"]["name"]: layer for layer in layers}
    for layer in layers:
        if "layers" in layer.get("config", {}):
            return _layers(layer)
    raise ValueError("it contains no model with convolutions")


def _weights(group: h5py.Group) -> Arrays:
    """Reads all datasets by `<layer>/<weight>`, the last two components of their path."""
    found: Arrays = {}

    def collect(name: str, item: object) -> None:
        if isinstance(item, h5py.Dataset):
            found["/".join(name.split(":")[0].split("/")[-2:])] = np.asarray(item, np.float32)

    group.visititems(collect)
    return found


def _convolutions(layers: dict[str, dict[str, Any]]) -> Iterator[tuple[str, dict[str, Any]]]:
    """Yields convolutions with the normalisation after each, inputs first, branches as concatenated."""
    consumed = {name for layer in layers.values() for name in _inputs(layer)}
    visited: dict[str, str | None] = {}

    def visit(name: str) -> Iterator[tuple[str, dict[str, Any]]]:
        """Visits a layer after its inputs; `visited` has the convolution whose output it passes on."""
        if name in visited:
            return
        layer = layers[name]
        visited[name] = None
        inputs = _inputs(layer)
        for source in inputs:
            yield from visit(source)
        if layer["class_name"] == _CONVOLUTION:
            visited[name] = name
        elif layer["class_name"] == _NORM and len(inputs) == 1 and visited[inputs[0]] is not None:
            epsilon = float(layer["config"].get("epsilon", _KERAS_EPSILON))
            yield str(visited[inputs[0]]), {"name": str(layer["config"]["name"]), "epsilon": epsilon}

    for name in layers:
        if name not in consumed:
            yield from visit(name)


def _inputs(layer: dict[str, Any]) -> list[str]:
    """Names of the input layers, in order."""
    nodes = layer.get("inbound_nodes") or [[]]
    return [source[0] for source in nodes[0]]


def _unit(
    layer: Convolution, weights: Arrays, convolution: str, norm: dict[str, Any], path: str | os.PathLike[str]
) -> Arrays:
    """Returns the arrays of a convolution and its normalisation, with the names of this library."""
    size, name = (layer.outputs,), norm["name"]
    arrays = {
        "kernel": weights.get(f"{convolution}/kernel", np.zeros(0, np.float32)),
        "bias": weights.get(f"{convolution}/bias", np.zeros(size, np.float32)),
        "gamma": weights.get(f"{name}/gamma", np.ones(size, np.float32)),
        "beta": weights.get(f"{name}/beta", np.zeros(size, np.float32)),
        "moving_mean": weights.get(f"{name}/moving_mean", np.zeros(0, np.float32)),
        # Their normalisation may add another epsilon to the variance.
        "moving_variance": weights.get(f"{name}/moving_variance", np.zeros(0, np.float32))
        + np.float32(norm["epsilon"] - EPSILON),
    }
    for weight, array in arrays.items():
        expected = layer.kernel_shape if weight == "kernel" else size
        if array.shape != expected:
            raise ValueError(
                f"{path}: {weight} of {convolution}, which should be {layer.name}, "
                f"has the shape {array.shape}; expected {expected}"
            )
    return {f"{layer.name}/{weight}": array for weight, array in arrays.items()}
