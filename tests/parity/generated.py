"""Files in the format of the golden ones, of any seed and shape, computed by loops in float64.

Gradients are central differences, one component at a time.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from tests.losses import oracles
from tests.losses.test_distance_regularization import Listed
from tests.losses.wrapper_oracles import synthetic, unit

Arrays = dict[str, np.ndarray]
Config = dict[str, Any]

_ORACLES = {"xent": "cross_entropy"}
_RENAMED = {
    "pos_margin": "positive_margin",
    "neg_margin": "negative_margin",
    "alpha_margin": "alpha",
    "beta_margin": "beta",
    "lambda_margin": "threshold",
    "beta_class": "beta",
    "beta_regularization_coeff_nu": "beta_weight",
    "alpha_scale": "alpha",
    "delta_margin": "margin",
    "lambda_softmax": "temperature",
    "margin": "margin",
}
_SOFT_TRIPLE = {
    "lambda_softmax": "scale",
    "gamma_entropy": "temperature",
    "tau_reg": "center_weight",
    "delta_margin": "margin",
}
_COMMON = {
    "avg_nonzero_only": True,
    "lipschitz_cont": True,
    "loss_weight": 1.0,
    "miner": None,
    "normalize_embeddings": True,
    "proxy_anchor": False,
    "squared_distance": False,
    "use_intra_proxy_pairs": False,
}


class Recorder:
    """Collects cases of one file."""

    def __init__(self, kind: str, seed: int) -> None:
        self.kind, self.random = kind, np.random.default_rng(seed)
        self.cases: dict[str, Config] = {}
        self.arrays: Arrays = {}

    def normal(self, *shape: int) -> np.ndarray:
        return self.random.normal(0.0, 0.6, shape).astype(np.float32)

    def labels(self, size: int, classes: int) -> np.ndarray:
        """Returns labels, first each class once, then at random: some anchors have no positive."""
        more = self.random.integers(0, classes, max(0, size - classes))
        return np.concatenate([np.arange(classes), more])[:size].astype(np.int32)

    def add(self, config: Config, arrays: Arrays) -> None:
        name = f"g{len(self.cases)}_{config['loss']}"
        self.cases[name] = config
        for key, value in arrays.items():
            dtype = np.float32 if np.asarray(value).dtype == np.float64 else None
            self.arrays[f"{name}/{key}"] = np.asarray(value, dtype)

    def write(self, folder: Path) -> None:
        config = json.dumps({"note": "made by loops", "cases": self.cases})
        np.savez(folder / f"{self.kind}.npz", config=np.array(config), **self.arrays)


def gradients(value: Callable[..., float], points: Arrays, step: float = 1e-6) -> Arrays:
    """Returns `grad_NAME` for each point, by central differences."""
    exact = {name: point.astype(np.float64) for name, point in points.items()}
    found = {}
    for name, point in exact.items():
        gradient = np.zeros_like(point)
        for index in np.ndindex(point.shape):
            ends = []
            for sign in (1, -1):
                moved = point.copy()
                moved[index] += sign * step
                ends.append(value(**{**exact, name: moved}))
            gradient[index] = (ends[0] - ends[1]) / (2 * step)
        found[f"grad_{name}"] = gradient
    return found


def value_of(
    config: Config, emb: np.ndarray, labels: np.ndarray, proxies: np.ndarray | None = None, **more: Any
) -> float:
    """Computes the recorded loss, without CCP, by loops."""
    return config["loss_weight"] * of_pairs(config, pairs_of(config, emb, labels, proxies), proxies, **more)


def pairs_of(
    config: Config,
    emb: np.ndarray,
    labels: np.ndarray,
    proxies: np.ndarray | None = None,
    proxy_labels: np.ndarray | None = None,
) -> oracles.Listed:
    """Lists the pairs of samples with each other or with proxies."""
    if proxies is not None and proxy_labels is None:
        proxy_labels = np.arange(len(proxies)) % config["num_classes"]
    kind = (
        "none" if not config["normalize_embeddings"] else "lipschitz" if config["lipschitz_cont"] else "unit"
    )
    squared = "squared_euclidean" if config["squared_distance"] else "euclidean"
    return oracles.listed_pairs(
        emb,
        labels,
        proxies,
        proxy_labels,
        normalization=kind,
        distance="cosine" if config["distance"] == "cos" else squared,
        # SoftTriple was recorded with proxies as rows; here the samples are its anchors.
        proxy_anchor=config["proxy_anchor"] and config["loss"] not in ("soft_triple", "xent"),
        proxy_pairs=config["use_intra_proxy_pairs"],
        miner="hard_negatives" if config["miner"] else None,
        references_per_batch=config.get("classes_per_batch", 0),
    )


def of_pairs(
    config: Config, pairs: oracles.Listed, proxies: np.ndarray | None = None, beta: np.ndarray | None = None
) -> float:
    """Computes the recorded loss of given pairs."""
    renamed = _SOFT_TRIPLE if config["loss"] == "soft_triple" else _RENAMED
    chosen = {new: config[old] for old, new in renamed.items() if old in config}
    chosen["average"] = "active" if config["avg_nonzero_only"] else "all"
    chosen["triplets"] = "all" if config.get("triplets_from_mat", True) else "hardest"
    if beta is not None:
        chosen["class_beta"] = beta[:, 0]
    if config["loss"] == "soft_triple":
        chosen |= {
            "proxies": proxies,
            "num_classes": config["num_classes"],
            "center_normalization": "none",
        }
    return getattr(oracles, _ORACLES.get(config["loss"], config["loss"]))(pairs, **chosen)


def add_loss(recorder: Recorder, config: Config, size: int, dimension: int, classes: int, k: int) -> None:
    """Adds a loss with `k` proxies per class, or CCP around it if the configuration has its weights."""
    config = {**_COMMON, "num_classes": classes, **config}
    labels, points = recorder.labels(size, classes), {"emb": recorder.normal(size, dimension)}
    if k:
        points["proxies"] = recorder.normal(k * classes, dimension)
    if config.get("per_class_beta"):
        points["beta"] = 0.9 + 0.3 * recorder.normal(classes, 1)

    def value(emb: np.ndarray, **more: Any) -> float:
        to_proxies = value_of(config, emb, labels, **more)
        if "ccp_weight" not in config:
            return to_proxies
        pair_config = {**config, "lipschitz_cont": True, "miner": None, "loss_weight": 1.0}
        pair_config |= {"proxy_anchor": False, "use_intra_proxy_pairs": False}
        of_batch = value_of(pair_config, emb, labels)
        return config["pair_loss_weight"] * of_batch + config["ccp_weight"] * to_proxies

    exact = {name: point.astype(np.float64) for name, point in points.items()}
    recorder.add(
        config, {**points, "labels": labels[:, None], "loss": value(**exact), **gradients(value, points)}
    )


def add_memory(recorder: Recorder, config: Config, size: int, dimension: int, classes: int) -> None:
    """Adds cross-batch memory, over two more steps than fill it."""
    config = {**_COMMON, "num_classes": classes, "use_proxy": True, **config}
    slots = config["batches_in_mem"]
    memory, memory_labels = np.zeros([slots, size, dimension], np.float32), np.zeros([slots, size], np.int32)
    rows: dict[str, list[Any]] = {}
    for step in range(1, slots + config["start_at"] + 3):
        labels, emb = recorder.labels(size, classes), recorder.normal(size, dimension)
        memory[(step - 1) % slots], memory_labels[(step - 1) % slots] = emb, labels
        in_use = step >= slots + config["start_at"]

        def value(emb: np.ndarray, labels: np.ndarray = labels, in_use: bool = in_use) -> float:
            total = config["pair_loss_weight"] * of_pairs(config, pairs_of(config, emb, labels))
            if in_use:
                references = memory.reshape(-1, dimension).astype(np.float64), memory_labels.ravel()
                total += config["xbm_weight"] * of_pairs(config, pairs_of(config, emb, labels, *references))
            return total

        state = {"memory": memory.copy(), "memory_labels": memory_labels[..., None].copy(), "pointer": step}
        found = {"emb": emb, "labels": labels[:, None], "memory_in_use": int(in_use), **state}
        found |= {"loss": value(emb.astype(np.float64)), **gradients(value, {"emb": emb})}
        for name, array in found.items():
            rows.setdefault(name, []).append(array)
    recorder.add(config, {name: np.stack(values) for name, values in rows.items()})


def add_regularized(recorder: Recorder, config: Config, size: int, dimension: int, levels: int) -> None:
    """Adds distance regularisation, over four steps."""
    config = {**_COMMON, "num_classes": 4, "normalize_embeddings": False, **config}
    start, listed = np.linspace(-2.0, 1.5, levels).astype(np.float32), Listed(config["momentum"])
    rows: dict[str, list[Any]] = {}
    for _ in range(4):
        labels, emb = recorder.labels(size, 4), recorder.normal(size, dimension)
        listed.update(emb.astype(np.float64), 1)

        def value(emb: np.ndarray, levels: np.ndarray, labels: np.ndarray = labels) -> float:
            term, scaled = listed.loss(emb, list(levels), config["mdr_weight"], config["nu_level_reg"], 1)
            return term + value_of(config, scaled, labels)

        points = {"emb": emb, "levels": start}
        found = {"emb": emb, "labels": labels[:, None], **gradients(value, points)}
        found["loss"] = value(emb.astype(np.float64), start.astype(np.float64))
        found["grad_levels"] = found["grad_levels"][None, None]
        found["running_mean_std"] = np.array([listed.mean, listed.deviation])
        for name, array in found.items():
            rows.setdefault(name, []).append(array)
    recorder.add(config, {"levels": start, **{name: np.stack(values) for name, values in rows.items()}})


def add_synthesis(recorder: Recorder, config: Config, size: int, dimension: int, classes: int) -> None:
    """Adds proxy synthesis in a sample-major batch of `size` classes; virtual softmax without a rate."""
    config = {**_COMMON, "num_classes": classes, "distance": "cos", "loss": "proxy_nca", **config}
    labels = np.tile(recorder.random.permutation(classes)[:size], 2).astype(np.int32)
    points = {"emb": recorder.normal(2 * size, dimension), "proxies": recorder.normal(classes, dimension)}
    kind = "lipschitz" if config["lipschitz_cont"] else "unit"
    count = round(2 * size * config.get("ps_mu", 0.0))

    def synthesis_of(emb: np.ndarray, proxies: np.ndarray) -> tuple[Any, ...]:
        return synthetic(emb, labels, proxies, config["mixing_rate"], count, kind, classes)

    def value(emb: np.ndarray, proxies: np.ndarray) -> float:
        real = (emb, labels, proxies, np.arange(classes))
        if "mixing_rate" in config:
            augmented = [np.concatenate(arrays) for arrays in zip(real, synthesis_of(emb, proxies))]
            return of_pairs(config, pairs_of(config, *augmented))
        pairs = pairs_of(config, *real)
        for row, negatives, embedding in zip(pairs.distances, pairs.negatives, emb):
            negatives.append(len(row))
            row.append(-sum(unit(embedding, kind) ** 2))
        return of_pairs(config, pairs)

    exact = {name: point.astype(np.float64) for name, point in points.items()}
    arrays = {**points, "labels": labels[:, None], "loss": value(**exact), **gradients(value, points)}
    if "mixing_rate" in config:
        made = [classes + i % size for i in range(count)]
        arrays["synthetic_labels"] = np.array(made, np.int32)[:, None]
    recorder.add(config, arrays)
