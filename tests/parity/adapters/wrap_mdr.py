"""Multi-level distance regularisation over consecutive calls."""

from __future__ import annotations

import numpy as np
import tensorflow as tf

from tests.parity.adapters.losses import build_loss_of, loss_name
from tests.parity.comparison import Case, Comparison


def compare(case: Case) -> list[Comparison]:
    """Compares one case of wrap_mdr.npz."""
    config, arrays = case.config, case.arrays
    settings = {
        "regularization_weight": config["mdr_weight"],
        "level_weight": config["nu_level_reg"],
        "statistics_momentum": config["momentum"],
        "num_levels": len(arrays["levels"]),
    }
    loss = build_loss_of(f"mdr/{loss_name(config)}", config, arrays["emb"].shape[2], settings)
    loss.levels.assign(arrays["levels"])
    recorded: dict[str, list[np.ndarray]] = {
        name: [] for name in ("loss", "grad_emb", "grad_levels", "running_mean_std")
    }
    for embeddings, labels in zip(arrays["emb"], arrays["labels"]):
        points = tf.constant(embeddings)
        with tf.GradientTape() as tape:
            tape.watch(points)
            value = loss(labels, points)
        of_points, of_levels = tape.gradient(value, [points, loss.levels])
        found = {
            "loss": value,
            "grad_emb": of_points,
            "grad_levels": of_levels,
            "running_mean_std": tf.stack([loss.running_mean, loss.running_deviation]),
        }
        for name, actual in found.items():
            recorded[name].append(actual.numpy())
    compared = []
    for name, values in recorded.items():
        tolerance = {"rtol": 1e-4, "atol": 1e-6} if name.startswith("grad") else {}
        actual = np.reshape(values, arrays[name].shape)
        compared.append(Comparison(name, actual, arrays[name], **tolerance))
    return compared
