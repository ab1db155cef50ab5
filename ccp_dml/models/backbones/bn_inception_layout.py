"""The convolutions of BN-Inception in their order. Imports no TensorFlow, as converting weights needs none.

Architecture: Ioffe and Szegedy, "Batch normalization", ICML 2015, figure 5, in the variant of the published
weights (`bn_inception-52deb4733.pth`), whose layer names are kept.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

CLASSES = 1000
EPSILON = 1e-5


class Convolution(NamedTuple):
    """A convolution with bias, followed by batch normalisation and ReLU.

    Attributes:
        name: name of the layer.
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
        name: name of the block.
        inputs: number of input channels.
        single: channels of the 1x1 branch; 0 for no such branch in a block that halves the resolution.
        triple: channels of the 3x3 branch: reduction, convolution.
        double: channels of the branch of two 3x3 convolutions: reduction, both convolutions.
        projection: channels after the pooling; 0 for no convolution there.
        average: True for average pooling, False for maximum pooling.
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
        """Step of the block: 2 if it halves the resolution, else 1."""
        return 1 if self.single else 2

    @property
    def branches(self) -> list[list[Convolution]]:
        """The convolutions of each branch, in the order of concatenation; the last may have none."""
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


# Maximum pooling over 3x3 positions, with step 2, follows the first and the last of them.
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
    """Yields all convolutions: those of the stem, then block by block and branch by branch."""
    yield from STEM
    for block in BLOCKS:
        for branch in block.branches:
            yield from branch


def feature_channels() -> int:
    """Number of channels of the last feature map."""
    last = BLOCKS[-1]
    return last.single + last.triple[1] + last.double[1] + last.projection
