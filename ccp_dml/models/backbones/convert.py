"""Converts published PyTorch weights to this library's weights file.

In an environment with PyTorch, which needs no TensorFlow:

    python -m ccp_dml.models.backbones.convert bn_inception bn_inception-52deb4733.pth OUT.npz
    python -m ccp_dml.models.backbones.convert efficientnet_lite0 IN.pth OUT.npz --dtype=float16
    python -m ccp_dml.models.backbones.convert vit_small_16 dino_deitsmall16_pretrain.pth OUT.npz

The input is a state dict in a .pth, .safetensors or .npz file; the last two need no PyTorch. Unknown arrays
are refused and, except for EfficientNet, arrays of another shape than the published one.
"""

from __future__ import annotations

import argparse
import functools
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from ccp_dml.models.backbones.bn_inception_layout import CLASSES, convolutions, feature_channels
from ccp_dml.models.backbones.vit_layout import VARIANTS, convert_vit

Arrays = dict[str, npt.NDArray[np.float32]]
_CLASSIFIER = "last_linear"
# PyTorch counts batches; the published file is older than that.
_COUNTER = "num_batches_tracked"
NORM = {
    "weight": "gamma",
    "bias": "beta",
    "running_mean": "moving_mean",
    "running_var": "moving_variance",
}
# The convolutions of a block and the normalisations that follow them.
_BLOCK = {
    "_expand_conv": ("expand", "_bn0"),
    "_depthwise_conv": ("depthwise", "_bn1"),
    "_project_conv": ("project", "_bn2"),
}


def published_shapes() -> dict[str, tuple[int, ...]]:
    """Returns names and shapes of the published arrays in PyTorch: kernels are [output, input, k, k]."""
    shapes: dict[str, tuple[int, ...]] = {}
    for layer in convolutions():
        shapes[f"{layer.name}.weight"] = (layer.outputs, layer.inputs, layer.kernel_size, layer.kernel_size)
        shapes[f"{layer.name}.bias"] = (layer.outputs,)
        shapes |= {f"{layer.name}_bn.{theirs}": (layer.outputs,) for theirs in NORM}
    shapes[f"{_CLASSIFIER}.weight"] = (CLASSES, feature_channels())
    shapes[f"{_CLASSIFIER}.bias"] = (CLASSES,)
    return shapes


def convert_bn_inception(state: Mapping[str, npt.NDArray[Any]]) -> Arrays:
    """Renames and transposes the arrays of a PyTorch state dict.

    Args:
        state: arrays by name in PyTorch.

    Returns:
        float32 arrays by `<layer>/<weight>`; kernels are [k, k, input, output].

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
        raise ValueError(f"{len(problems)} arrays are not those of BN-Inception: {'; '.join(problems[:3])}")


def _problems(state: Mapping[str, npt.NDArray[Any]]) -> Iterator[str]:
    shapes = published_shapes()
    for name, shape in shapes.items():
        if name not in state:
            yield f"{name} is missing"
        elif state[name].shape != shape:
            yield f"{name} has the shape {state[name].shape}, expected {shape}"
    for name in state:
        if name not in shapes and not name.endswith(_COUNTER):
            yield f"{name} is unknown"


def convert_efficientnet_lite0(state: Mapping[str, npt.NDArray[Any]]) -> dict[str, npt.NDArray[Any]]:
    """Renames and transposes the arrays of a PyTorch state dict.

    Args:
        state: arrays by name in PyTorch; convolution kernels are [output, input, k, k].

    Returns:
        float32 arrays by `<layer>/<weight>`; kernels are [k, k, input, output], depthwise ones
        [k, k, channels, 1].

    Raises:
        ValueError: if an array of the state dict is unknown.
    """
    arrays = {
        "classifier/kernel": state["_fc.weight"].T,
        "classifier/bias": state["_fc.bias"],
        **_layer(state, "_conv_stem", "_bn0", "stem"),
        **_layer(state, "_conv_head", "_bn1", "head"),
    }
    blocks = {int(name.split(".")[1]) for name in state if name.startswith("_blocks.")}
    for block in sorted(blocks):
        for convolution, (layer, norm) in _BLOCK.items():
            prefix = f"_blocks.{block}."
            if f"{prefix}{convolution}.weight" in state:
                arrays |= _layer(state, prefix + convolution, prefix + norm, f"block{block}_{layer}")
    expected = sum(not name.endswith(_COUNTER) for name in state)
    if len(arrays) != expected:
        raise ValueError(f"{len(arrays)} arrays were converted; the state dict has {expected}")
    return {name: np.ascontiguousarray(array, np.float32) for name, array in arrays.items()}


def _layer(
    state: Mapping[str, npt.NDArray[Any]], convolution: str, norm: str, layer: str
) -> dict[str, npt.NDArray[Any]]:
    # PyTorch stores a depthwise kernel as [channels, 1, k, k].
    axes = (2, 3, 0, 1) if "depthwise" in convolution else (2, 3, 1, 0)
    return {
        f"{layer}/kernel": state[f"{convolution}.weight"].transpose(axes),
        **{f"{layer}/{ours}": state[f"{norm}.{theirs}"] for theirs, ours in NORM.items()},
    }


def save(arrays: Mapping[str, npt.NDArray[Any]], path: Path, dtype: str = "float16") -> None:
    """Writes a compressed weights file; kernels (arrays with several axes) are stored as `dtype`."""
    path.parent.mkdir(parents=True, exist_ok=True)
    stored = {name: array.astype(dtype) if array.ndim > 1 else array for name, array in arrays.items()}
    np.savez_compressed(path, **stored)


def read_state(path: Path) -> dict[str, npt.NDArray[Any]]:
    """Reads a PyTorch state dict as arrays.

    Raises:
        ModuleNotFoundError: if the package that reads such a file is not installed.
    """
    if path.suffix == ".npz":
        with np.load(path, allow_pickle=False) as file:
            return {name: file[name] for name in file.files}
    if path.suffix == ".safetensors":
        from safetensors.numpy import load_file

        return dict(load_file(path))
    import torch

    state = torch.load(path, map_location="cpu", weights_only=True)
    return {name: tensor.numpy() for name, tensor in state.items()}


CONVERTERS: dict[str, Callable[[Mapping[str, npt.NDArray[Any]]], Mapping[str, npt.NDArray[Any]]]] = {
    "bn_inception": convert_bn_inception,
    "efficientnet_lite0": convert_efficientnet_lite0,
    **{name: functools.partial(convert_vit, name) for name in VARIANTS},
}


def main() -> None:
    """Converts a file, as the command line says."""
    parser = argparse.ArgumentParser(description="Converts PyTorch weights of a backbone.")
    parser.add_argument("backbone", choices=CONVERTERS)
    parser.add_argument("input", type=Path, help="state dict to read: .pth, .safetensors or .npz")
    parser.add_argument("output", type=Path, help="weights file to write, .npz")
    parser.add_argument("--dtype", choices=("float16", "float32"), default="float32", help="of the kernels")
    arguments = parser.parse_args()
    if arguments.output.suffix != ".npz":
        parser.error(f"{arguments.output}: expected a name that ends in .npz")
    try:
        state = read_state(arguments.input)
    except ModuleNotFoundError as error:
        parser.error(f"{arguments.input}: reading it needs a package: pip install {error.name}")
    except Exception as error:
        # Only the first line: PyTorch explains at length why it runs no code of a file.
        reason = str(error).strip().split("\n", 1)[0]
        parser.error(f"{arguments.input} cannot be read ({type(error).__name__}: {reason})")
    try:
        arrays = CONVERTERS[arguments.backbone](state)
    except ValueError as error:
        parser.error(f"{arguments.input}: {error}")
    save(arrays, arguments.output, arguments.dtype)
    print(f"{arguments.output}: {len(arrays)} arrays, {arguments.output.stat().st_size / 1e6:.1f} MB")


if __name__ == "__main__":
    main()
