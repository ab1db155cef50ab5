"""The options of the embedding model."""

from __future__ import annotations

import dataclasses

from ccp_dml.kinds import Choice, Integer, PathText, Patterns, Switch, Text
from ccp_dml.options import Options, option

POOLINGS = ("average", "max", "both", "none", "gem")


@dataclasses.dataclass(frozen=True)
class ModelOptions(Options):
    """The embedding model."""

    backbone: str = option(
        "efficientnet_lite0",
        Text("a backbone"),
        "Network below the pooling: a name, keras:NAME, MODULE:FUNCTION, or a saved Keras model.",
    )
    backbone_weights: str | None = option(
        None,
        PathText("the name of weights, or a file"),
        "imagenet, random, own, or a file, .npz or .h5 (default: the backbone's).",
    )
    backbone_layer: str | None = option(
        None, Text("the name of a layer"), "Layer whose output is pooled (default: the backbone's last)."
    )
    backbone_options: str | None = option(
        None, Text("name=value,name=value"), "Options of a backbone that has some, see docs/backbones.md."
    )
    freeze_batch_norm: bool | None = option(
        None, Switch(), "Keep the backbone's batch normalisation as loaded (default: unless random)."
    )
    frozen_layers: tuple[str, ...] = option(
        (),
        Patterns(),
        "Layers of the backbone that are never trained: regular expressions for the start of their names.",
    )
    pooling: str = option(
        "average",
        Choice(POOLINGS),
        "Global pooling; both adds average and max, none keeps all positions, gem is the generalised mean.",
    )
    embedding_size: int = option(128, Integer(1), "Dimensions of an embedding.")
    initial_weights: str | None = option(
        None,
        PathText("a path"),
        "Weights of the embedding model to start from: a finished run or a file; {fold} and {repeat} in the "
        "path stand for those of the run.",
    )
