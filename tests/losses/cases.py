"""Cases of every loss and wrapper: a path with options, built and as an oracle.

A new loss has a case without options in `BASIC` by itself; add a line to `DETAILED` for each option.
"""

from __future__ import annotations

import inspect
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import tensorflow as tf

from ccp_dml.losses import registry
from ccp_dml.losses.base import MetricLoss
from ccp_dml.losses.options import PairOptions
from ccp_dml.losses.pair_loss import PairLoss
from ccp_dml.losses.registry import LOSSES, build
from ccp_dml.options import options_of
from tests.losses import oracles

NUM_CLASSES, SIZE, BATCH = 5, 4, 12
_PAIR_OPTIONS = (
    "normalization",
    "distance",
    "proxy_anchor",
    "proxy_pairs",
    "miner",
    "references_per_batch",
)


@dataclass(frozen=True)
class LossCase:
    """A loss path with options."""

    path: str
    options: dict[str, Any] = field(default_factory=dict)

    @property
    def id(self) -> str:
        return "-".join([self.path, *(f"{key}={value}" for key, value in self.options.items())])

    def build(self, seed: int = 0) -> MetricLoss:
        """Builds the loss, its variables away from their initial values."""
        loss = build(self.path, num_classes=NUM_CLASSES, embedding_size=SIZE, options=self.options)
        random = np.random.default_rng(seed + 100)
        for variable in loss.trainable_variables:
            variable.assign(random.normal(0.8, 0.4, variable.shape))
        return loss

    def oracle(self, loss: MetricLoss, embeddings: np.ndarray, labels: np.ndarray) -> float:
        """Computes the same loss by loops."""
        if self.path.startswith("ccp/"):
            return self._ccp_oracle(loss, embeddings, labels)
        proxies = None if loss.proxies is None else loss.proxies.embeddings.numpy().astype(np.float64)
        return self._of_pairs(loss, embeddings, labels, proxies, self.options)

    def _of_pairs(
        self, loss: Any, embeddings: Any, labels: Any, proxies: Any, options: dict[str, Any]
    ) -> float:
        name = self.path.split("/")[-1]
        given = {key: options[key] for key in _PAIR_OPTIONS if key in options}
        chosen = {**oracles.PAIR_OPTIONS.get(name, {}), **given}
        proxy_labels = None if proxies is None else np.arange(len(proxies)) % NUM_CLASSES
        pairs = oracles.listed_pairs(embeddings, labels, proxies, proxy_labels, **chosen)
        variables = {"proxies": proxies, "num_classes": NUM_CLASSES}
        if getattr(loss, "class_beta", None) is not None:
            variables["class_beta"] = loss.class_beta.numpy()
        return options.get("weight", 1.0) * getattr(oracles, name)(pairs, **variables, **options)

    def _ccp_oracle(self, loss: Any, embeddings: np.ndarray, labels: np.ndarray) -> float:
        options = dict(self.options)
        proxies = loss.proxies.embeddings.numpy().astype(np.float64)
        batch_options = {**options, "proxy_anchor": False, "proxy_pairs": False}
        if not options.get("mine_pairs"):
            batch_options["miner"] = None
        if options.get("pair_normalization"):
            batch_options["normalization"] = options["pair_normalization"]
        of_batch = self._of_pairs(loss.base, embeddings, labels, None, batch_options)
        to_proxies = self._of_pairs(loss.base, embeddings, labels, proxies, options)
        return options.get("pair_weight", 0.1) * of_batch + options.get("proxy_weight", 1.0) * to_proxies


# For properties of every loss.
BASIC = [LossCase(name) for name in LOSSES] + [
    LossCase("ccp/contrastive"),
    LossCase("ccp/original_contrastive"),
    LossCase("ccp/triplet"),
    LossCase("ccp/multi_similarity"),
    LossCase("contrastive", {"proxies_per_class": 2, "miner": "hard_negatives"}),
    LossCase("margin", {"per_class": True, "beta_weight": 0.1}),
    LossCase("triplet", {"triplets": "hardest"}),
    LossCase("triplet", {"triplets": "semi_hard", "margin": 0.5}),
    LossCase("cross_entropy", {"references_per_batch": 4, "distance": "cosine"}),
]

# Further options, for values and gradients.
DETAILED = [
    LossCase("contrastive", {"average": "all", "normalization": "unit", "negative_margin": 1.1}),
    LossCase("contrastive", {"distance": "squared_euclidean", "negative_margin": 1.3, "weight": 0.7}),
    LossCase("contrastive", {"distance": "cosine", "positive_margin": -0.9, "negative_margin": -0.2}),
    LossCase("contrastive", {"normalization": "none", "negative_margin": 2.0, "miner": "hard_negatives"}),
    LossCase("contrastive", {"proxies_per_class": 2, "proxy_anchor": True, "average": "all"}),
    LossCase("contrastive", {"proxies_per_class": 3, "proxy_pairs": True, "negative_margin": 1.1}),
    LossCase("contrastive", {"references_per_batch": 4, "proxy_anchor": True, "negative_margin": 1.1}),
    LossCase("original_contrastive", {"margin": 0.1, "slack": 0.05, "proxies_per_class": 2}),
    LossCase("original_contrastive", {"proxies_per_class": 2, "proxy_anchor": True}),
    LossCase("triplet", {"average": "all", "margin": 0.3}),
    LossCase("triplet", {"proxies_per_class": 2, "proxy_anchor": True, "margin": 0.2}),
    LossCase("triplet", {"miner": "hard_negatives", "distance": "cosine"}),
    LossCase("triplet", {"triplets": "hardest", "average": "all", "proxies_per_class": 3}),
    LossCase("triplet", {"triplets": "semi_hard", "average": "all", "proxies_per_class": 2}),
    LossCase("multi_similarity", {"proxies_per_class": 2, "alpha": 14.0, "threshold": 0.6}),
    LossCase("margin", {"average": "all", "beta": 0.9}),
    LossCase("margin", {"per_class": True, "proxies_per_class": 2, "proxy_anchor": True}),
    LossCase("cross_entropy", {"temperature": 0.5}),
    LossCase("proxy_anchor", {"proxies_per_class": 3, "alpha": 8.0, "normalization": "unit"}),
    LossCase("proxy_nca", {"proxies_per_class": 2, "margin": 0.1}),
    LossCase("soft_triple", {"proxies_per_class": 3, "center_normalization": "none"}),
    LossCase("soft_triple", {"proxies_per_class": 2, "distance": "euclidean", "scale": 5.0}),
    LossCase("ccp/contrastive", {"proxies_per_class": 2, "miner": "hard_negatives", "mine_pairs": True}),
    LossCase("ccp/contrastive", {"miner": "hard_negatives", "proxy_anchor": True, "pair_weight": 0.4}),
    LossCase(
        "ccp/original_contrastive",
        {"normalization": "unit", "pair_normalization": "lipschitz", "proxy_weight": 0.6, "weight": 2.0},
    ),
]

# Wrappers with state; the memory of the first ones is full after two batches.
WRAPPED = [
    LossCase("xbm/contrastive", {"memory_size": 20, "start_step": 2}),
    LossCase("xbm/triplet", {"memory_size": 24, "start_step": 0, "exclude_own_copy": False}),
    LossCase("xbm/original_contrastive", {"memory_size": 17, "start_step": 1, "anchors_per_block": 5}),
    LossCase("mdr/contrastive", {"normalization": "none", "level_weight": 0.1}),
    LossCase("mdr/multi_similarity", {"num_levels": 2}),
    LossCase("mdr/proxy_nca", {"regularization_weight": 0.5}),
    LossCase("ps/proxy_nca", {"proxies_per_class": 2}),
    LossCase("ps/proxy_anchor", {"synthetic_share": 0.5, "mixing_rate": 0.3}),
    LossCase("virtual_softmax/proxy_nca", {"margin": 0.1}),
    LossCase("ccp/xbm/contrastive", {"memory_size": 20, "start_step": 2}),
    LossCase("mdr/ccp/xbm/triplet", {"memory_size": 20, "start_step": 1, "normalization": "unit"}),
    LossCase("xbm/mdr/margin", {"memory_size": 20, "start_step": 1, "normalization": "none"}),
    LossCase("ps/virtual_softmax/proxy_nca", {"mixing_rate": 0.3, "weight": 0.5}),
]

# Every order in which wrappers can be inside each other, around various losses.
_MEMORY = {"memory_size": 20, "start_step": 2, "memory_weight": 0.7}
_UNIT = {"normalization": "unit"}
NESTED = [
    LossCase("ccp/xbm/contrastive", {**_MEMORY, "pair_weight": 0.4, "negative_margin": 1.1}),
    LossCase("ccp/mdr/triplet", {"normalization": "none", "margin": 0.3, "proxies_per_class": 2}),
    LossCase("xbm/ccp/margin", {**_MEMORY, "beta": 0.9, "proxies_per_class": 2, "weight": 0.5}),
    LossCase("xbm/mdr/cross_entropy", {**_MEMORY, **_UNIT, "temperature": 0.5}),
    LossCase("mdr/ccp/multi_similarity", {**_UNIT, "proxy_weight": 0.6}),
    LossCase("mdr/xbm/original_contrastive", {**_MEMORY, "normalization": "none", "margin": 0.1}),
    LossCase("ccp/xbm/mdr/contrastive", {**_MEMORY, "normalization": "none", "negative_margin": 1.5}),
    LossCase("ccp/mdr/xbm/multi_similarity", {**_MEMORY, **_UNIT, "beta": 10.0}),
    LossCase("xbm/ccp/mdr/original_contrastive", {**_MEMORY, **_UNIT, "level_weight": 0.1}),
    LossCase("xbm/mdr/ccp/contrastive", {**_MEMORY, **_UNIT, "negative_margin": 1.1}),
    LossCase("mdr/ccp/xbm/triplet", {**_MEMORY, **_UNIT, "margin": 0.2, "num_levels": 2}),
    LossCase("mdr/xbm/ccp/cross_entropy", {**_MEMORY, **_UNIT, "temperature": 0.4}),
    LossCase("mdr/ps/proxy_anchor", {"mixing_rate": 0.3, "alpha": 8.0, **_UNIT}),
    LossCase("mdr/virtual_softmax/proxy_nca", {"proxies_per_class": 2, "normalization": "none"}),
    LossCase("ps/virtual_softmax/proxy_nca", {"mixing_rate": 0.7, "proxies_per_class": 2, "weight": 0.5}),
    LossCase("mdr/ps/virtual_softmax/proxy_nca", {"mixing_rate": 0.4, "temperature": 0.3, **_UNIT}),
]


def single_paths() -> list[str]:
    """Paths of all losses, alone and inside each wrapper that they can be in."""
    found = list(registry.LOSSES)
    for wrapper in registry.WRAPPERS:
        for loss in registry.LOSSES:
            try:
                registry.parse(f"{wrapper}/{loss}")
            except ValueError:
                continue
            found.append(f"{wrapper}/{loss}")
    return found


def batch(seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Draws labels, at least two of each of four classes, and embeddings with norms around 1."""
    random = np.random.default_rng(seed)
    labels = np.concatenate([np.arange(4), np.arange(4), random.integers(0, 4, BATCH - 8)])
    return labels.astype(np.int32), random.normal(0.0, 0.6, (BATCH, SIZE)).astype(np.float32)


def arguments_of(kind: type[MetricLoss]) -> set[str]:
    """Names of the keyword arguments of a loss class, those of its base classes and options included."""
    names = {
        name
        for base in kind.__mro__
        if issubclass(base, MetricLoss) and "__init__" in vars(base)
        for name, parameter in inspect.signature(base.__init__).parameters.items()
        if name != "self" and parameter.kind is not inspect.Parameter.VAR_KEYWORD
    }
    if issubclass(kind, PairLoss):
        names |= {option.name for option in options_of(PairOptions)}
    return names


def value_and_gradients(
    loss: MetricLoss, labels: Any, embeddings: Any
) -> tuple[tf.Tensor, tf.Tensor, list[tf.Tensor]]:
    """Returns the value, its gradient for the embeddings, and its gradients for the trainable variables."""
    embeddings = tf.convert_to_tensor(embeddings)
    variables = list(loss.trainable_variables)
    with tf.GradientTape() as tape:
        tape.watch(embeddings)
        value = loss(labels, embeddings)
    gradient, of_variables = tape.gradient(value, [embeddings, variables], unconnected_gradients="zero")
    return value, gradient, of_variables
