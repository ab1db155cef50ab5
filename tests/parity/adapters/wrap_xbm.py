"""Cross-batch memory over consecutive calls: losses, gradients and the state after each."""

from __future__ import annotations

import numpy as np
import tensorflow as tf

from tests.parity.adapters.losses import build_loss_of, loss_name
from tests.parity.comparison import Case, Comparison


def compare(case: Case) -> list[Comparison]:
    """Compares one case of wrap_xbm.npz."""
    config, arrays = case.config, case.arrays
    steps, batch_size, embedding_size = arrays["emb"].shape
    settings = {
        "memory_size": config["batches_in_mem"] * batch_size,
        "start_step": config["start_at"] + config["batches_in_mem"],
        "memory_weight": config["xbm_weight"],
        # The recorded pair term is without the weight of the base loss.
        "pair_weight": config["pair_loss_weight"] / config["loss_weight"],
        "exclude_own_copy": False,
    }
    loss = build_loss_of(f"xbm/{loss_name(config)}", config, embedding_size, settings)
    names = ("loss", "grad_emb", "memory_in_use", "memory", "memory_labels", "pointer")
    recorded: dict[str, list[np.ndarray]] = {name: [] for name in names}
    for embeddings, labels in zip(arrays["emb"], arrays["labels"]):
        points = tf.constant(embeddings)
        with tf.GradientTape() as tape:
            tape.watch(points)
            value = loss(labels, points)
        found = {
            "loss": value,
            "grad_emb": tape.gradient(value, points),
            "memory_in_use": loss.memory_in_use,
            "memory": loss.memory,
            "memory_labels": loss.memory_labels,
            "pointer": loss.steps,
        }
        for name, actual in found.items():
            recorded[name].append(actual.numpy())
    # Rows that were never written have no class here, and class 0 in the recording.
    filled = np.arange(1, steps + 1) * batch_size
    of_rows = np.arange(settings["memory_size"]) < filled[:, np.newaxis]
    labels = np.where(of_rows, np.stack(recorded.pop("memory_labels")), 0)
    gradient = np.stack(recorded.pop("grad_emb"))
    atol = 1e-6 if config["distance"] == "cos" else 1e-3
    rtol = {"loss": 1e-5}
    return [
        Comparison(
            "memory_labels", labels.reshape(arrays["memory_labels"].shape), arrays["memory_labels"], 0.0
        ),
        Comparison("grad_emb", gradient, arrays["grad_emb"], rtol=1e-4, atol=atol),
        *(
            Comparison(name, np.reshape(values, arrays[name].shape), arrays[name], rtol=rtol.get(name, 0.0))
            for name, values in recorded.items()
        ),
    ]
