"""Outputs of the published BN-Inception network on weights that follow from a seed.

    python -m tests.models.bn_inception_reference

writes them anew, in an environment with NumPy, PyTorch and the Python package pretrainedmodels 0.7.4, whose
code of the network computes them. The tests compare this library's network on equal weights, without these.
"""

from __future__ import annotations

import hashlib
import importlib.util
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np

from ccp_dml.models.backbones.convert import published_shapes

FILE = Path(__file__).parent / "bn_inception_reference.npz"
# Odd and even sides at every level, and that of the paper. Of the outputs every eighth channel is kept.
SIDES = (64, 97, 227)
CHANNEL_STEP = 8


def state() -> dict[str, np.ndarray]:
    """Weights under their names in PyTorch, each drawn from a generator that its name seeds."""
    return {name: _draw(name, shape) for name, shape in published_shapes().items()}


def _draw(name: str, shape: tuple[int, ...]) -> np.ndarray:
    key = int.from_bytes(hashlib.sha256(name.encode()).digest()[:8], "little")
    generator = np.random.Generator(np.random.Philox(key=key))
    if len(shape) > 1:
        values = generator.normal(0, np.sqrt(1.5 / np.prod(shape[1:])), shape)
        # Pixels are a hundred times larger than what later layers receive.
        return (values / 64 if name.startswith("conv1_7x7") else values).astype(np.float32)
    positive = name.endswith(("running_var", "_bn.weight"))
    values = generator.uniform(0.5, 1.5, shape) if positive else generator.normal(0, 0.2, shape)
    return values.astype(np.float32)


def images(side: int) -> np.ndarray:
    """Two scaled images [2, side, side, 3], with values as pixels less their mean have."""
    generator = np.random.Generator(np.random.Philox(key=side))
    return generator.uniform(-128, 128, (2, side, side, 3)).astype(np.float32)


def published_network() -> Any:
    """The published network with the weights of `state`; needs PyTorch and pretrainedmodels."""
    import torch

    network = _module().BNInception()
    network.load_state_dict({name: torch.from_numpy(array) for name, array in state().items()}, strict=False)
    return network.eval()


def published_features(network: Any, side: int) -> np.ndarray:
    """Its feature map [2, h, w, 1024] of `images(side)`."""
    import torch

    with torch.no_grad():
        features = network.features(torch.from_numpy(images(side).transpose(0, 3, 1, 2)))
    return np.asarray(features.numpy().transpose(0, 2, 3, 1))


def _module() -> ModuleType:
    # The package itself imports more than the network needs.
    package = importlib.util.find_spec("pretrainedmodels")
    assert package is not None
    assert package.submodule_search_locations is not None
    path = Path(package.submodule_search_locations[0]) / "models" / "bninception.py"
    spec = importlib.util.spec_from_file_location("published_bn_inception", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


if __name__ == "__main__":
    network = published_network()
    features = {str(side): published_features(network, side)[..., ::CHANNEL_STEP] for side in SIDES}
    np.savez_compressed(FILE, **features)
    for name, array in features.items():
        print(name, array.shape, float(np.abs(array).max()), float(array.std()))
