"""Distances between all pairs of two sets of vectors."""

from __future__ import annotations

from typing import Literal

import numpy as np
import tensorflow as tf

Distance = Literal["euclidean", "squared_euclidean", "cosine"]
DISTANCES: tuple[str, ...] = ("euclidean", "squared_euclidean", "cosine")

# |r|^2 + |x|^2 - 2 r.x of coincident points is rounding noise: up to 6 units of float32's epsilon times |r|^2
# + |x|^2 were measured over D = 2..2048. What is not above 8 cannot be told from zero, and is zero: unit
# vectors nearer than 1.4e-3 coincide.
_NOISE = 8.0 * float(np.finfo(np.float32).eps)


def check_distance(kind: str) -> None:
    """Raise ValueError unless `kind` is a known distance."""
    if kind not in DISTANCES:
        raise ValueError(f"distance is {kind!r}; expected one of {', '.join(DISTANCES)}")


def pairwise_distances(
    references: tf.Tensor, samples: tf.Tensor | None = None, kind: str = "euclidean"
) -> tf.Tensor:
    """Distance of every reference (row) to every sample (column).

    Args:
        references: [R, D], any float dtype.
        samples: [B, D]; None compares the references with each other.
        kind: `'euclidean'`, `'squared_euclidean'`, or `'cosine'`: the negative inner product `-r.x`, which is
            the negative cosine similarity if the vectors have unit length (nothing is normalised here).

    Returns:
        [R, B], float32. Euclidean distances of coincident points are exactly 0 and their gradient is 0; so is
        the diagonal when the references are compared with each other.

    Raises:
        ValueError: if `kind` is unknown.
    """
    check_distance(kind)
    references = tf.cast(references, tf.float32)
    others = references if samples is None else tf.cast(samples, tf.float32)
    products = tf.matmul(references, others, transpose_b=True)
    if kind == "cosine":
        return -products
    sizes = squared_norms(references)[:, tf.newaxis] + squared_norms(others)[tf.newaxis, :]
    squared = sizes - 2.0 * products
    apart = squared > _NOISE * tf.stop_gradient(sizes)
    if samples is None:
        apart = tf.linalg.set_diag(apart, tf.zeros_like(apart[:, 0]))
    if kind == "squared_euclidean":
        return tf.where(apart, squared, 0.0)
    # sqrt has no finite gradient at 0, not even behind a `where`: the inner one keeps zeros away from it.
    return tf.where(apart, tf.sqrt(tf.where(apart, squared, 1.0)), 0.0)


def squared_norms(vectors: tf.Tensor) -> tf.Tensor:
    """Squared Euclidean norm along the last axis: [..., D] -> [...]."""
    return tf.reduce_sum(tf.square(vectors), axis=-1)
