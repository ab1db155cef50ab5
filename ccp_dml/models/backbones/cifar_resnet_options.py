"""The options of `cifar_resnet`, checked without TensorFlow."""

from __future__ import annotations

from dataclasses import dataclass

ACTIVATIONS = ("bn", "ln", "relu", "softplus", "softmax")
DECIMATIONS = ("skip", "avg", "conv")
_NO_ACTIVATION = "none"


@dataclass(frozen=True)
class CifarResNetOptions:
    """What the network is made of.

    An activation is a sequence of `bn` (batch normalisation), `ln` (layer normalisation), `relu`, `softplus`
    and `softmax` (over channels), joined by underscores, or `none`.

    Attributes:
        stages: number of stages, at least 1; each after the first halves the resolution and doubles the
            channels.
        blocks: number of blocks of a stage, at least 1, the first of which changes the number of channels.
        block_repeats: how often each of the other blocks is applied, with the same weights; at least 1.
        final_activation: whether batch normalisation and ReLU follow the last block.
        decimation: how resolution is halved: `skip`, a convolution of one position in two by two; `avg`, a
            mean over the four and then a convolution; `conv`, a convolution of the four.
        pre_activation: before the reduction of a block, except in the very first one.
        mid_activation: before the 3x3 convolution.
        post_activation: before the expansion.
        input_injection: whether what a repeated block received at first is added, through a layer of its
            own, behind the reduction of each repeat.
        zero_mean_kernel: whether kernels of the expansion have mean 0 over their inputs after each update.
    """

    stages: int = 3
    blocks: int = 2
    block_repeats: int = 1
    final_activation: bool = True
    decimation: str = "skip"
    pre_activation: str = "bn_relu"
    mid_activation: str = "bn_relu"
    post_activation: str = "bn_relu"
    input_injection: bool = False
    zero_mean_kernel: bool = False

    def __post_init__(self) -> None:
        """Raises `ValueError` unless all values are valid."""
        for name in ("stages", "blocks", "block_repeats"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} is {getattr(self, name)}; at least 1 is expected")
        if self.decimation not in DECIMATIONS:
            raise ValueError(f"decimation is {self.decimation}; expected one of {', '.join(DECIMATIONS)}")
        for name in ("pre_activation", "mid_activation", "post_activation"):
            unknown = set(steps(getattr(self, name))) - set(ACTIVATIONS)
            if unknown:
                raise ValueError(
                    f"{name} is {getattr(self, name)}; expected {_NO_ACTIVATION}, or "
                    f"{', '.join(ACTIVATIONS)} joined by underscores"
                )


def steps(activation: str) -> tuple[str, ...]:
    """The steps of an activation; none for `none`."""
    return () if activation == _NO_ACTIVATION else tuple(activation.split("_"))
