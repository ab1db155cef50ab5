"""The options of every loss over pairs: normalisation, distance, average, miner, proxies."""

from __future__ import annotations

import dataclasses

from ccp_dml.kinds import Choice, Integer, Number, Switch
from ccp_dml.options import Options, option

# The names in `ccp_dml.geometry`, which imports TensorFlow.
NORMALIZATIONS = ("lipschitz", "unit", "l1", "none")
DISTANCES = ("euclidean", "squared_euclidean", "cosine")


@dataclasses.dataclass(frozen=True)
class PairOptions(Options):
    """Options that a `PairLoss` takes as keyword arguments.

    None stands for the default of the loss: the Euclidean distance, samples as anchors and no proxies, unless
    its formula is only defined for another distance, for proxies as anchors, or with proxies (then one per
    class).
    """

    normalization: str = option(
        "lipschitz",
        Choice(NORMALIZATIONS),
        "Normalisation of embeddings, evaluation included (default: lipschitz; with mdr/... none, or unit).",
    )
    distance: str | None = option(None, Choice(DISTANCES), "Distance between embeddings.")
    average: str = option(
        "active", Choice(("active", "all")), "Average over the terms that are not 0, or over all."
    )
    miner: str | None = option(
        None, Choice(("hard_negatives", "distance_weighted")), "Selection of negatives."
    )
    weight: float = option(1.0, Number(low=0), "Factor on the loss; inside ccp, on both of its terms.")
    proxies_per_class: int | None = option(
        None, Integer(0), "Proxies per class (K); 0: none, compare samples."
    )
    proxy_anchor: bool | None = option(None, Switch(), "Proxies are the anchors, not the samples.")
    proxy_pairs: bool = option(False, Switch(), "Compare proxies with each other too.")
    proxy_learning_rate_multiplier: float = option(
        1.0, Number(above=0), "Learning rate of proxies relative to --learning_rate."
    )
    references_per_batch: int = option(
        0, Integer(0), "First samples of a batch that are the references of the others; 0: none."
    )
