"""Distances, pair masks and normalisation with their gradients."""

from __future__ import annotations

import numpy as np
import tensorflow as tf

from ccp_dml.geometry import normalize, pair_masks, pairwise_distances
from tests.parity.comparison import Case, Comparison

_VALUE = {"rtol": 1e-5}
_GRADIENT = {"rtol": 1e-4, "atol": 1e-6}


def compare(case: Case) -> list[Comparison]:
    """Compares one case of ops.npz."""
    if "lipschitz_cont" in case.config:
        return _normalization(case)
    return _masks(case) if "labels" in case.arrays else _distances(case)


def _normalization(case: Case) -> list[Comparison]:
    kind = "lipschitz" if case.config["lipschitz_cont"] else "unit"
    x = tf.constant(case.arrays["x"])
    with tf.GradientTape() as tape:
        tape.watch(x)
        out = normalize(x, kind)
    gradient = tape.gradient(out, x, output_gradients=tf.constant(case.arrays["g_out"]))
    return [
        Comparison("out", out.numpy(), case.arrays["out"], **_VALUE),
        Comparison("grad_x", gradient.numpy(), case.arrays["grad_x"], **_GRADIENT),
    ]


def _distances(case: Case) -> list[Comparison]:
    kind = "cosine"
    if "squared" in case.config:
        kind = "squared_euclidean" if case.config["squared"] else "euclidean"
    x = tf.constant(case.arrays["x"])
    references = tf.constant(case.arrays["ref"]) if case.config["has_ref"] else None
    with tf.GradientTape() as tape:
        tape.watch(x)
        if references is None:
            out = pairwise_distances(x, kind=kind)
            sources = {"grad_x": x}
        else:
            tape.watch(references)
            out = pairwise_distances(references, x, kind)
            sources = {"grad_x": x, "grad_ref": references}
    gradients = tape.gradient(out, sources, output_gradients=tf.constant(case.arrays["g_out"]))
    return [Comparison("out", out.numpy(), case.arrays["out"], **_VALUE)] + [
        Comparison(name, gradient.numpy(), case.arrays[name], **_GRADIENT)
        for name, gradient in gradients.items()
    ]


def _masks(case: Case) -> list[Comparison]:
    labels = case.arrays["labels"][:, 0]
    if case.config.get("structured"):
        # The batch is sample-major: the first sample of each class, then the second of each, and so on.
        positives, negatives = pair_masks(tf.range(len(labels)) % case.config["num_classes"])
    elif case.config["has_ref"]:
        positives, negatives = pair_masks(case.arrays["ref_labels"][:, 0], labels)
    else:
        positives, negatives = pair_masks(labels)
    return [
        Comparison("pos_mask", np.asarray(positives, np.float32), case.arrays["pos_mask"], rtol=0.0),
        Comparison("neg_mask", np.asarray(negatives, np.float32), case.arrays["neg_mask"], rtol=0.0),
    ]
