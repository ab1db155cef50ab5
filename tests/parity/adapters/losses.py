"""Translation of recorded options of losses, and comparison of values and gradients."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import tensorflow as tf

from ccp_dml.losses.base import MetricLoss
from ccp_dml.losses.registry import build, parameters
from tests.parity.comparison import Case, Comparison

_MINERS = {None: None, "hardNegatives": "hard_negatives"}
_RENAMED = {
    "contrastive": {"pos_margin": "positive_margin", "neg_margin": "negative_margin"},
    "original_contrastive": {"margin": "margin"},
    "triplet": {"margin": "margin"},
    "multi_similarity": {"alpha_margin": "alpha", "beta_margin": "beta", "lambda_margin": "threshold"},
    "proxy_anchor": {"alpha_scale": "alpha", "delta_margin": "margin"},
    "proxy_nca": {"lambda_softmax": "temperature", "delta_margin": "margin"},
    "soft_triple": {
        "lambda_softmax": "scale",
        "gamma_entropy": "temperature",
        "tau_reg": "center_weight",
        "delta_margin": "margin",
    },
    "margin": {"alpha_margin": "alpha", "beta_class": "beta", "beta_regularization_coeff_nu": "beta_weight"},
    "cross_entropy": {"lambda_softmax": "temperature", "classes_per_batch": "references_per_batch"},
}
_OF_PAPER = {"xent": "cross_entropy"}


def loss_name(config: dict[str, Any]) -> str:
    """Returns the name of the recorded loss in the registry."""
    return _OF_PAPER.get(config["loss"], config["loss"])


def options(config: dict[str, Any]) -> dict[str, Any]:
    """Returns the constructor arguments of the recorded loss."""
    name = loss_name(config)
    chosen = {new: config[old] for old, new in _RENAMED[name].items() if old in config}
    chosen["distance"] = _distance(config)
    chosen["normalization"] = normalization(config)
    if "avg_nonzero_only" in config:
        chosen["average"] = "active" if config["avg_nonzero_only"] else "all"
    chosen["miner"] = _MINERS[config.get("miner")]
    chosen["weight"] = config.get("loss_weight", 1.0)
    if name in ("contrastive", "original_contrastive", "triplet"):
        chosen["proxy_anchor"] = config["proxy_anchor"]
        chosen["proxy_pairs"] = config.get("use_intra_proxy_pairs", False)
    if "triplets_from_mat" in config:
        chosen["triplets"] = "all" if config["triplets_from_mat"] else "hardest"
    if "per_class_beta" in config:
        chosen["per_class"] = config["per_class_beta"]
    if name == "soft_triple":
        chosen["center_normalization"] = "none"
    return chosen


def normalization(config: dict[str, Any]) -> str:
    """Returns the name of the recorded normalisation."""
    if not config.get("normalize_embeddings", True):
        return "none"
    return "lipschitz" if config["lipschitz_cont"] else "unit"


def _distance(config: dict[str, Any]) -> str:
    if config["distance"] == "cos":
        return "cosine"
    return "squared_euclidean" if config.get("squared_distance") else "euclidean"


def build_loss_of(
    path: str, config: dict[str, Any], embedding_size: int, extra: dict[str, Any] | None = None
) -> MetricLoss:
    """Makes the loss of a recorded configuration, without options that the path does not have."""
    chosen = {**options(config), **(extra or {})}
    return build(
        path,
        num_classes=config.get("num_classes", 0),
        embedding_size=embedding_size,
        options={name: value for name, value in chosen.items() if name in parameters(path)},
    )


def build_loss(path: str, case: Case, extra: dict[str, Any] | None = None) -> MetricLoss:
    """Makes the loss of a case, with the recorded proxies, if there are any."""
    chosen = {**options(case.config), **(extra or {})}
    proxies = case.arrays.get("proxies_initial", case.arrays.get("proxies"))
    num_classes = case.config.get("num_classes", 0)
    size = case.arrays["emb"].shape[1] if "emb" in case.arrays else proxies.shape[1]
    if proxies is not None:
        chosen["proxies_per_class"] = len(proxies) // num_classes
    loss = build(path, num_classes=num_classes, embedding_size=size, options=chosen)
    if proxies is not None:
        loss.proxies.embeddings.assign(proxies)
    return loss


def compare_loss(
    case: Case,
    loss: MetricLoss,
    variables: Sequence[tuple[str, tf.Variable]] = (),
    gradient_rtol: float = 1e-4,
) -> list[Comparison]:
    """Compares value and gradients for the embeddings, the proxies and the named variables."""
    embeddings = tf.constant(case.arrays["emb"])
    sources = {"grad_emb": embeddings, **dict(variables)}
    if loss.proxies is not None:
        sources["grad_proxies"] = loss.proxies.embeddings
    with tf.GradientTape() as tape:
        tape.watch(embeddings)
        value = loss(case.arrays["labels"], embeddings)
    gradients = tape.gradient(value, sources, unconnected_gradients="zero")
    compared = [Comparison("loss", value.numpy(), case.arrays["loss"])]
    for name, gradient in gradients.items():
        actual = tf.convert_to_tensor(gradient).numpy()
        compared.append(Comparison(name, actual, case.arrays[name], rtol=gradient_rtol, atol=1e-6))
    return compared


def compare_by_name(case: Case) -> list[Comparison]:
    """Compares a case of a loss without wrapper."""
    return compare_loss(case, build_loss(loss_name(case.config), case), gradient_rtol=rtol(case.config))


def rtol(config: dict[str, Any]) -> float:
    """Returns the relative tolerance of the gradients."""
    steep = config.get("beta_margin", 0.0) >= 75.0 or config["loss"] == "soft_triple"
    return 1e-3 if steep else 1e-4
