"""The flags of the loss."""

from __future__ import annotations

import dataclasses

from ccp_dml.config.fields import flag
from ccp_dml.config.values import Choice, Integer, Number, Switch, Text

_NORMALIZATIONS = ("lipschitz", "unit", "l1", "none")


@dataclasses.dataclass(frozen=True)
class LossConfig:
    """The loss. A flag below must be one that the losses in --loss take; else their defaults hold."""

    loss: str = flag(
        "ccp/contrastive", Text("a path of losses"), "Loss, wrappers first, such as ccp/contrastive."
    )
    normalization: str | None = flag(
        None,
        Choice(_NORMALIZATIONS),
        "Normalisation of embeddings, evaluation included (default: lipschitz; with mdr/... none, or unit).",
    )
    pair_normalization: str | None = flag(
        None, Choice(_NORMALIZATIONS), "Normalisation in the pair term of CCP."
    )
    distance: str | None = flag(
        None, Choice(("euclidean", "squared_euclidean", "cosine")), "Distance between embeddings."
    )
    average: str | None = flag(None, Choice(("active", "all")), "Pairs over which a loss is averaged.")
    miner: str | None = flag(None, Choice(("hard_negatives", "distance_weighted")), "Selection of negatives.")
    mine_pairs: bool | None = flag(None, Switch(), "Mine the pairs of the batch too, in ccp or xbm.")
    proxies_per_class: int | None = flag(None, Integer(0), "Proxies per class (K); 0: none, compare samples.")
    proxy_anchor: bool | None = flag(None, Switch(), "Proxies are the anchors, not the samples.")
    proxy_pairs: bool | None = flag(None, Switch(), "Compare proxies with each other too.")
    proxy_learning_rate_multiplier: float | None = flag(
        None, Number(above=0), "Learning rate of proxies relative to --learning_rate."
    )
    pair_weight: float | None = flag(None, Number(low=0), "Weight of the pairs inside a batch in ccp or xbm.")
    proxy_weight: float | None = flag(None, Number(low=0), "Weight of batch against proxies in CCP.")
    positive_margin: float | None = flag(
        None, Number(), "Distance up to which a positive pair costs nothing."
    )
    negative_margin: float | None = flag(None, Number(), "Distance from which a negative pair costs nothing.")
    margin: float | None = flag(None, Number(), "Margin of a loss that has one.")
    slack: float | None = flag(None, Number(), "Slack of the positive term of original_contrastive.")
    triplets: str | None = flag(None, Choice(("all", "hardest", "semi_hard")), "Triplets of triplet.")
    alpha: float | None = flag(None, Number(above=0), "Steepness for positives, or half the gap of margin.")
    beta: float | None = flag(None, Number(), "Steepness for negatives, or the boundary of margin.")
    threshold: float | None = flag(None, Number(), "Similarity at which multi_similarity bends.")
    per_class: bool | None = flag(None, Switch(), "Learn a boundary for each class in margin.")
    beta_weight: float | None = flag(None, Number(low=0), "Weight of the mean boundary in margin.")
    temperature: float | None = flag(None, Number(above=0), "Temperature of a softmax.")
    scale: float | None = flag(None, Number(above=0), "Factor on the class similarities of soft_triple.")
    center_weight: float | None = flag(
        None, Number(low=0), "Weight of distances between proxies of a class in soft_triple."
    )
    center_normalization: str | None = flag(
        None, Choice(_NORMALIZATIONS), "Normalisation of the proxies in these distances."
    )
    references_per_batch: int | None = flag(
        None, Integer(0), "First samples of a batch that are the references of the others; 0: none."
    )
    weight: float | None = flag(None, Number(low=0), "Factor on the loss, inside ccp on both of its terms.")
    memory_size: int | None = flag(None, Integer(1), "Embeddings in the memory of xbm.")
    memory_weight: float | None = flag(None, Number(low=0), "Weight of batch against memory in xbm.")
    start_step: int | None = flag(None, Integer(0), "First step, from 1, that may use the memory of xbm.")
    exclude_own_copy: bool | None = flag(
        None, Switch(), "In xbm, do not pair an image with its own embeddings in the memory."
    )
    anchors_per_block: int | None = flag(
        None, Integer(0), "In xbm, anchors compared with the memory at a time, to save room; 0: all."
    )
    regularization_weight: float | None = flag(
        None, Number(low=0), "Weight of the distances to the levels in mdr."
    )
    level_weight: float | None = flag(None, Number(low=0), "Weight of the squared levels in mdr.")
    num_levels: int | None = flag(None, Integer(1), "Number of levels in mdr.")
    statistics_momentum: float | None = flag(
        None, Number(low=0, below=1), "Momentum of the running mean and deviation of distances in mdr."
    )
    mixing_alpha: float | None = flag(
        None, Number(above=0), "In ps, both parameters of the beta distribution of the mixing rate."
    )
    mixing_rate: float | None = flag(None, Number(low=0, high=1), "A fixed mixing rate in ps.")
    synthetic_share: float | None = flag(
        None, Number(above=0, high=1), "Synthetic samples in ps, relative to the batch."
    )
