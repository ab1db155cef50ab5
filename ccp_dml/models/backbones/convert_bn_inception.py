"""Converts the published PyTorch weights of BN-Inception to this library's weights file.

In an environment with PyTorch, on the file `bn_inception-52deb4733.pth`:

    python -m ccp_dml.models.backbones.convert_bn_inception IN.pth OUT.npz

Every name and every shape is checked; the arrays keep their precision.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from ccp_dml.models.backbones.bn_inception_layout import CLASSES, convolutions, feature_channels
from ccp_dml.models.backbones.convert_efficientnet_lite0 import NORM, read_state, save

Arrays = dict[str, npt.NDArray[np.float32]]
_CLASSIFIER = "last_linear"
# PyTorch counts batches; the published file is older than that.
_COUNTER = "num_batches_tracked"


def published_shapes() -> dict[str, tuple[int, ...]]:
    """Names and shapes of the published arrays, as PyTorch has them: kernels are [output, input, k, k]."""
    shapes: dict[str, tuple[int, ...]] = {}
    for layer in convolutions():
        shapes[f"{layer.name}.weight"] = (layer.outputs, layer.inputs, layer.kernel_size, layer.kernel_size)
        shapes[f"{layer.name}.bias"] = (layer.outputs,)
        shapes |= {f"{layer.name}_bn.{theirs}": (layer.outputs,) for theirs in NORM}
    shapes[f"{_CLASSIFIER}.weight"] = (CLASSES, feature_channels())
    shapes[f"{_CLASSIFIER}.bias"] = (CLASSES,)
    return shapes


def convert(state: Mapping[str, npt.NDArray[Any]]) -> Arrays:
    """Renames and transposes the arrays of a PyTorch state dict.

    Args:
        state: arrays by their name in PyTorch.

    Returns:
        Float32 arrays by `<layer>/<weight>`; kernels are [k, k, input, output].

    Raises:
        ValueError: if an array is missing, unknown, or of another shape.
    """
    _check(state)
    arrays = {
        "classifier/kernel": state[f"{_CLASSIFIER}.weight"].T,
        "classifier/bias": state[f"{_CLASSIFIER}.bias"],
    }
    for layer in convolutions():
        arrays[f"{layer.name}/kernel"] = state[f"{layer.name}.weight"].transpose(2, 3, 1, 0)
        arrays[f"{layer.name}/bias"] = state[f"{layer.name}.bias"]
        for theirs, ours in NORM.items():
            arrays[f"{layer.name}/{ours}"] = state[f"{layer.name}_bn.{theirs}"]
    return {name: np.ascontiguousarray(array, np.float32) for name, array in arrays.items()}


def _check(state: Mapping[str, npt.NDArray[Any]]) -> None:
    problems = list(_problems(state))
    if problems:
        raise ValueError(f"{len(problems)} arrays are not those of BN-Inception: {'; '.join(problems[:3])}.")


def _problems(state: Mapping[str, npt.NDArray[Any]]) -> Iterator[str]:
    shapes = published_shapes()
    for name, shape in shapes.items():
        if name not in state:
            yield f"{name} is missing"
        elif state[name].shape != shape:
            yield f"{name} has the shape {state[name].shape}, {shape} is expected"
    for name in state:
        if name not in shapes and not name.endswith(_COUNTER):
            yield f"{name} is unknown"


def main() -> None:
    """Converts the file that the command line names."""
    parser = argparse.ArgumentParser(description="Convert the PyTorch weights of BN-Inception.")
    parser.add_argument("input", type=Path, help="bn_inception-52deb4733.pth")
    parser.add_argument("output", type=Path, help="npz file to write")
    arguments = parser.parse_args()
    if arguments.output.suffix != ".npz":
        parser.error(f"{arguments.output}: a name that ends in .npz is expected")
    try:
        state = read_state(arguments.input)
    except Exception as error:
        # PyTorch explains over many lines why it runs no code of a file.
        reason = str(error).strip().split("\n", 1)[0]
        parser.error(f"{arguments.input} cannot be read by PyTorch ({type(error).__name__}: {reason})")
    try:
        arrays = convert(state)
    except ValueError as error:
        parser.error(f"{arguments.input}: {error}")
    save(arrays, arguments.output, np.float32)
    print(f"{arguments.output}: {len(arrays)} arrays, {arguments.output.stat().st_size / 1e6:.1f} MB")


if __name__ == "__main__":
    main()
