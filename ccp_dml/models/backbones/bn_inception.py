"""BN-Inception, the backbone of the paper; see `bn_inception_layout` for its source."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from typing import Any, NamedTuple

import h5py
import numpy as np
import numpy.typing as npt
import tensorflow as tf

from ccp_dml.models.backbones.layers import FrozenNormConvolution, layer_seeds
from ccp_dml.models.backbones.weights import assign_arrays, check_hdf5

_MOMENTUM = 0.9


def bn_inception(images: tf.Tensor, *, frozen_norm: bool, seed: int = 0) -> tf.Tensor:
    """Applies the network.

    Padding is that of the published network: on both sides for convolutions; pooling with step 2 pads at the
    bottom and on the right only, and only where a window would be incomplete.

    Args:
        images: BGR images [B, H, W, 3] in 0..255 less their mean, of any size.
        frozen_norm: whether batch normalisation is never trained.
        seed: of the initial weights.

    Returns:
        Feature map [B, h, w, 1024], h being about H / 32: 7 for 224 and for 227 pixels.
    """
    convolution = _Convolution(frozen_norm, layer_seeds(seed))
    features = _max_pool(convolution(images, STEM[0]), "pool1_3x3_s2")
    for layer in STEM[1:]:
        features = convolution(features, layer)
    features = _max_pool(features, "pool2_3x3_s2")
    for block in BLOCKS:
        features = _inception(features, block, convolution)
    return features


def _inception(inputs: tf.Tensor, block: Block, convolution: _Convolution) -> tf.Tensor:
    outputs = []
    for index, branch in enumerate(block.branches):
        features = inputs
        if index == len(block.branches) - 1:
            features = _branch_pool(inputs, block)
        for layer in branch:
            features = convolution(features, layer)
        outputs.append(features)
    return tf.keras.layers.Concatenate(name=f"{block.name}_output")(outputs)


def _branch_pool(inputs: tf.Tensor, block: Block) -> tf.Tensor:
    name = f"{block.name}_pool"
    if block.strides == 2:
        return _max_pool(inputs, name)
    if block.average:
        # Zeros beyond the border count in the average, which 'same' would leave out.
        padded = tf.keras.layers.ZeroPadding2D(1, name=f"{name}_pad")(inputs)
        return tf.keras.layers.AveragePooling2D(3, 1, name=name)(padded)
    return tf.keras.layers.MaxPooling2D(3, 1, "same", name=name)(inputs)


def _max_pool(inputs: tf.Tensor, name: str) -> tf.Tensor:
    return CeilMaxPooling(name=name)(inputs)


@tf.keras.utils.register_keras_serializable("ccp_dml")
class CeilMaxPooling(tf.keras.layers.Layer):
    """The maximum over 3x3 positions with step 2; incomplete windows at the bottom and on the right count.

    A side of n positions becomes ceil((n - 3) / 2) + 1, at least 1.
    """

    def call(self, inputs: tf.Tensor) -> tf.Tensor:
        """Returns the maxima of [B, H, W, F]."""
        height, width = (_missing(inputs, axis) for axis in (1, 2))
        # What is pooled has passed a ReLU, so that zeros change no maximum.
        padded = tf.pad(inputs, [[0, 0], [0, height], [0, width], [0, 0]])
        return tf.nn.max_pool2d(padded, 3, 2, "VALID")

    def compute_output_shape(self, input_shape: tf.TensorShape) -> tf.TensorShape:
        """[B, h, w, F]; unknown sides stay unknown."""
        batch, *sides, channels = input_shape
        pooled = [None if side is None else max(1, -(-(side - 3) // 2) + 1) for side in sides]
        return tf.TensorShape([batch, *pooled, channels])


def _missing(inputs: tf.Tensor, axis: int) -> int | tf.Tensor:
    """Positions that complete the last window of 3 with step 2."""
    if inputs.shape[axis] is not None:
        return max(3 - inputs.shape[axis], 1 - inputs.shape[axis] % 2)
    size = tf.shape(inputs)[axis]
    return tf.maximum(3 - size, 1 - size % 2)


class _Convolution:
    """Applies a new convolution with batch normalisation and ReLU."""

    def __init__(self, frozen_norm: bool, seeds: Iterator[int]) -> None:
        self._frozen_norm = frozen_norm
        self._seeds = seeds

    def __call__(self, inputs: tf.Tensor, layer: Convolution) -> tf.Tensor:
        seed = next(self._seeds)
        if self._frozen_norm:
            outputs = FrozenNormConvolution(
                layer.outputs,
                layer.kernel_size,
                layer.strides,
                EPSILON,
                # Loading sets every weight, so that there is nothing to draw.
                kernel_initializer="zeros",
                symmetric_padding=True,
                use_bias=True,
                name=layer.name,
            )(inputs)
        else:
            outputs = self._trainable(inputs, layer, seed)
        return tf.keras.layers.ReLU(name=f"{layer.name}_relu")(outputs)

    @staticmethod
    def _trainable(inputs: tf.Tensor, layer: Convolution, seed: int) -> tf.Tensor:
        padding = "same"
        if layer.strides > 1:
            margin = (layer.kernel_size - 1) // 2
            inputs = tf.keras.layers.ZeroPadding2D(margin, name=f"{layer.name}_pad")(inputs)
            padding = "valid"
        convolved = tf.keras.layers.Conv2D(
            layer.outputs,
            layer.kernel_size,
            layer.strides,
            padding,
            kernel_initializer=tf.keras.initializers.HeNormal(seed=seed),
            name=layer.name,
        )(inputs)
        return tf.keras.layers.BatchNormalization(
            momentum=_MOMENTUM, epsilon=EPSILON, name=f"{layer.name}_norm"
        )(convolved)


def load_bn_inception_h5(model: tf.keras.Model, path: str | os.PathLike[str]) -> None:
    """Sets the weights of the network from a Keras model file of the authors of CCP.

    Raises:
        ValueError: if it is no such file, or its network is another.
    """
    assign_arrays(model, read_bn_inception(path), path)


CLASSES = 1000
EPSILON = 1e-5


class Convolution(NamedTuple):
    """A convolution with bias, followed by batch normalisation and ReLU.

    Attributes:
        name: of the layer.
        inputs: number of input channels.
        outputs: number of output channels.
        kernel_size: side of the square kernel.
        strides: step in both directions; the padding is (kernel_size - 1) / 2 on every side.
    """

    name: str
    inputs: int
    outputs: int
    kernel_size: int = 1
    strides: int = 1

    @property
    def kernel_shape(self) -> tuple[int, int, int, int]:
        """Shape of the kernel in Keras: (k, k, inputs, outputs)."""
        return self.kernel_size, self.kernel_size, self.inputs, self.outputs


class Block(NamedTuple):
    """Parallel branches whose outputs are concatenated: 1x1, 3x3, two 3x3 in sequence, pooling.

    Attributes:
        name: of the block.
        inputs: number of input channels.
        single: channels of the 1x1 branch; 0: there is none, and the block halves the resolution.
        triple: channels of the 3x3 branch: reduction, convolution.
        double: channels of the branch of two 3x3 convolutions: reduction, both convolutions.
        projection: channels behind the pooling; 0 where it passes all channels on.
        average: whether the pooling is by average.
    """

    name: str
    inputs: int
    single: int
    triple: tuple[int, int]
    double: tuple[int, int]
    projection: int
    average: bool = True

    @property
    def strides(self) -> int:
        """Step of the block."""
        return 1 if self.single else 2

    @property
    def branches(self) -> list[list[Convolution]]:
        """The convolutions of each branch, in the order of the concatenation; the last may have none."""
        reduced, wide = self.triple
        reduced2, wide2 = self.double
        strides = self.strides
        return [
            *([[self._layer("1x1", self.inputs, self.single)]] if self.single else []),
            [
                self._layer("3x3_reduce", self.inputs, reduced),
                self._layer("3x3", reduced, wide, 3, strides),
            ],
            [
                self._layer("double_3x3_reduce", self.inputs, reduced2),
                self._layer("double_3x3_1", reduced2, wide2, 3),
                self._layer("double_3x3_2", wide2, wide2, 3, strides),
            ],
            [self._layer("pool_proj", self.inputs, self.projection)] if self.projection else [],
        ]

    def _layer(
        self, name: str, inputs: int, outputs: int, kernel_size: int = 1, strides: int = 1
    ) -> Convolution:
        return Convolution(f"{self.name}_{name}", inputs, outputs, kernel_size, strides)


# A maximum over 3x3 positions, with step 2, follows the first and the last of them.
STEM = (
    Convolution("conv1_7x7_s2", 3, 64, 7, 2),
    Convolution("conv2_3x3_reduce", 64, 64),
    Convolution("conv2_3x3", 64, 192, 3),
)

BLOCKS = (
    Block("inception_3a", 192, 64, (64, 64), (64, 96), 32),
    Block("inception_3b", 256, 64, (64, 96), (64, 96), 64),
    Block("inception_3c", 320, 0, (128, 160), (64, 96), 0, average=False),
    Block("inception_4a", 576, 224, (64, 96), (96, 128), 128),
    Block("inception_4b", 576, 192, (96, 128), (96, 128), 128),
    Block("inception_4c", 576, 160, (128, 160), (128, 160), 128),
    Block("inception_4d", 608, 96, (128, 192), (160, 192), 128),
    Block("inception_4e", 608, 0, (128, 192), (192, 256), 0, average=False),
    Block("inception_5a", 1056, 352, (192, 320), (160, 224), 128),
    Block("inception_5b", 1024, 352, (192, 320), (192, 224), 128, average=False),
)


def convolutions() -> Iterator[Convolution]:
    """All convolutions: those of the stem, then block by block and branch by branch."""
    yield from STEM
    for block in BLOCKS:
        for branch in block.branches:
            yield from branch


def feature_channels() -> int:
    """Number of channels of the last feature map."""
    last = BLOCKS[-1]
    return last.single + last.triple[1] + last.double[1] + last.projection


Arrays = dict[str, npt.NDArray[np.float32]]

_CONVOLUTION, _NORM = "Conv2D", "BatchNormalization"
_KERAS_EPSILON = 1e-3


def read_bn_inception(path: str | os.PathLike[str]) -> Arrays:
    """Reads the weights of the network.

    Args:
        path: a Keras HDF5 model file.

    Returns:
        float32 arrays by `<layer>/<weight>`, with the names of this library's network.

    Raises:
        ValueError: if it is no such file, or its network is another.
    """
    try:
        check_hdf5(path)
        with h5py.File(path, "r") as file:
            layers = _layers(json.loads(file.attrs["model_config"]))
            weights = _weights(file["model_weights"])
    except (OSError, KeyError, ValueError) as error:
        raise ValueError(f"{path} cannot be read as a Keras model file ({error}).") from error
    found, expected = list(_convolutions(layers)), list(convolutions())
    if len(found) != len(expected):
        raise ValueError(
            f"{path} has {len(found)} convolutions with batch normalisation; "
            f"BN-Inception has {len(expected)}."
        )
    arrays: Arrays = {}
    for layer, (convolution, norm) in zip(expected, found):
        arrays |= _unit(layer, weights, convolution, norm, path)
    return arrays


def _layers(config: dict[str, Any]) -> dict[str, dict[str, Any]]:
    """The layers by name of the innermost model that has convolutions."""
    layers = config.get("config", {}).get("layers", [])
    if any(layer["class_name"] == _CONVOLUTION for layer in layers):
        return {layer["config"]["name"]: layer for layer in layers}
    for layer in layers:
        if "layers" in layer.get("config", {}):
            return _layers(layer)
    raise ValueError("it holds no model with convolutions")


def _weights(group: h5py.Group) -> Arrays:
    """All datasets by `<layer>/<weight>`, the last two parts of their path."""
    found: Arrays = {}

    def collect(name: str, item: object) -> None:
        if isinstance(item, h5py.Dataset):
            found["/".join(name.split(":")[0].split("/")[-2:])] = np.asarray(item, np.float32)

    group.visititems(collect)
    return found


def _convolutions(layers: dict[str, dict[str, Any]]) -> Iterator[tuple[str, dict[str, Any]]]:
    """Convolutions with the normalisation that follows each, inputs first, branches as concatenated."""
    consumed = {name for layer in layers.values() for name in _inputs(layer)}
    visited: dict[str, str | None] = {}

    def visit(name: str) -> Iterator[tuple[str, dict[str, Any]]]:
        """Visits a layer after its inputs and notes the convolution whose output it passes on."""
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
            yield str(visited[inputs[0]]), layer["config"]

    for name in layers:
        if name not in consumed:
            yield from visit(name)


def _inputs(layer: dict[str, Any]) -> list[str]:
    """Names of the layers whose outputs it takes, in order."""
    nodes = layer.get("inbound_nodes") or [[]]
    return [source[0] for source in nodes[0]]


def _unit(
    layer: Convolution, weights: Arrays, convolution: str, norm: dict[str, Any], path: str | os.PathLike[str]
) -> Arrays:
    """The arrays of one convolution and its normalisation, under this library's names."""
    size, name = (layer.outputs,), norm["name"]
    arrays = {
        "kernel": weights.get(f"{convolution}/kernel", np.zeros(0, np.float32)),
        "bias": weights.get(f"{convolution}/bias", np.zeros(size, np.float32)),
        "gamma": weights.get(f"{name}/gamma", np.ones(size, np.float32)),
        "beta": weights.get(f"{name}/beta", np.zeros(size, np.float32)),
        "moving_mean": weights.get(f"{name}/moving_mean", np.zeros(0, np.float32)),
        # What their normalisation adds to the variance need not be what this library's adds.
        "moving_variance": weights.get(f"{name}/moving_variance", np.zeros(0, np.float32))
        + np.float32(norm.get("epsilon", _KERAS_EPSILON) - EPSILON),
    }
    for weight, array in arrays.items():
        expected = layer.kernel_shape if weight == "kernel" else size
        if array.shape != expected:
            raise ValueError(
                f"{path}: {weight} of {convolution}, which should be {layer.name}, "
                f"has the shape {array.shape}; {expected} is expected."
            )
    return {f"{layer.name}/{weight}": array for weight, array in arrays.items()}
