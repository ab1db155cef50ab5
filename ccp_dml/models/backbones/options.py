"""Options of backbones, as text: `--backbone_options=stages=2,decimation=avg`. Imports no TensorFlow."""

from __future__ import annotations

import dataclasses
from typing import Any

from ccp_dml.kinds import Choice, Integer, Kind, Switch
from ccp_dml.options import Options, option, options_of

_ACTIVATIONS = ("bn", "ln", "relu", "softplus", "softmax")
_NO_ACTIVATION = "none"


@dataclasses.dataclass(frozen=True)
class Activation(Kind):
    """A sequence of layers without kernels, such as `bn_relu`; `none` for no layer.

    The layers are `bn` (batch normalisation), `ln` (layer normalisation), `relu`, `softplus` and `softmax`
    (over channels).
    """

    expected: str = f"{_NO_ACTIVATION}, or {', '.join(_ACTIVATIONS)} joined by underscores"

    def holds(self, value: Any) -> bool:
        """True for a text of known layers."""
        return isinstance(value, str) and set(activation_layers(value)) <= set(_ACTIVATIONS)


def activation_layers(activation: str) -> tuple[str, ...]:
    """Splits an activation into its layers; empty for `none`."""
    return () if activation == _NO_ACTIVATION else tuple(activation.split("_"))


@dataclasses.dataclass(frozen=True)
class CifarResNetOptions(Options):
    """The residual network `cifar_resnet`."""

    stages: int = option(
        3,
        Integer(1),
        "Number of stages; each after the first halves the resolution and doubles the channels.",
    )
    blocks: int = option(
        2, Integer(1), "Number of blocks of a stage; the first of them changes the number of channels."
    )
    block_repeats: int = option(
        1, Integer(1), "Number of times that each other block is applied, with the same weights."
    )
    final_activation: bool = option(True, Switch(), "Batch normalisation and ReLU after the last block.")
    decimation: str = option(
        "skip",
        Choice(("skip", "avg", "conv")),
        "Halving of the resolution: skip, a convolution of every other position; avg, a mean over 2 x 2 "
        "positions and then a convolution; conv, a convolution of 2 x 2 positions.",
    )
    pre_activation: str = option(
        "bn_relu", Activation(), "Before the reduction of a block, except in the very first block."
    )
    mid_activation: str = option("bn_relu", Activation(), "Before the 3x3 convolution.")
    post_activation: str = option("bn_relu", Activation(), "Before the expansion.")
    input_injection: bool = option(
        False,
        Switch(),
        "Add the input of a repeated block, through a layer of its own, after the reduction of each repeat.",
    )
    zero_mean_kernel: bool = option(
        False, Switch(), "Centre the kernels of the expansion over their inputs after each update."
    )


@dataclasses.dataclass(frozen=True)
class VitOptions(Options):
    """The vision transformers."""

    pooling: str = option(
        "cls", Choice(("cls", "mean")), "The class token, or the mean of the patches, as features."
    )


def parse_options(text: str, kind: type[Options]) -> Options:
    """Reads the options of a backbone from text.

    Args:
        text: `name=value,name=value`; may be empty.
        kind: the class of the options.

    Raises:
        ValueError: if a name is unknown or given twice, or a value is invalid.
    """
    declared = {item.name: item for item in options_of(kind)}
    values: dict[str, Any] = {}
    for item in filter(None, (item.strip() for item in text.split(","))):
        name, equals, value = item.partition("=")
        if not equals or name not in declared:
            raise ValueError(f"{item!r} is no option; expected name=value with one of {', '.join(declared)}")
        if name in values:
            raise ValueError(f"{name} is given twice; expected it once")
        try:
            values[name] = declared[name].parse(value)
        except ValueError as error:
            raise ValueError(f"{item}: {error}") from None
    return kind(**values)
