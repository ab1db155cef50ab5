"""The flags of the embedding model."""

from __future__ import annotations

import dataclasses

from ccp_dml.config.fields import flag
from ccp_dml.config.values import Choice, Integer, Patterns, Switch, Text


@dataclasses.dataclass(frozen=True)
class ModelConfig:
    """The embedding model."""

    backbone: str = flag("efficientnet_lite0", Text("the name of a backbone"), "Network below the pooling.")
    backbone_weights: str | None = flag(
        None,
        Text("the name of weights, or a file"),
        "imagenet, random, or a file, .npz or .h5 (default: the backbone's).",
    )
    backbone_layer: str | None = flag(
        None, Text("the name of a layer"), "Layer at which the backbone is cut (default: its last)."
    )
    backbone_options: str | None = flag(
        None, Text("name=value,name=value"), "Options of a backbone that has some, see docs/backbones.md."
    )
    freeze_batch_norm: bool | None = flag(
        None, Switch(), "Keep the backbone's batch normalisation as loaded (default: unless random)."
    )
    frozen_layers: tuple[str, ...] = flag(
        (),
        Patterns(),
        "Layers of the backbone that are never trained: regular expressions for the beginning of names.",
    )
    pooling: str = flag(
        "average",
        Choice(("average", "max", "both", "none", "gem")),
        "Global pooling; both adds the two, none keeps all positions, gem is the generalised mean.",
    )
    embedding_size: int = flag(128, Integer(1), "Dimensions of an embedding.")
    initial_weights: str | None = flag(
        None,
        Text("a path"),
        "Weights of the embedding model to start from: a finished run or a file; {fold} and {repeat} in the "
        "path stand for those of the run.",
    )
