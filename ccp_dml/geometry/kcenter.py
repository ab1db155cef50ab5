"""Greedy k-center: the choice of the points that cover a set best, given points that already cover it."""

from __future__ import annotations

import tensorflow as tf

from ccp_dml.geometry.distances import squared_norms
from ccp_dml.geometry.normalization import normalize


def greedy_k_center(
    pool: tf.Tensor, covered: tf.Tensor, k: int, normalized: bool = False
) -> tuple[tf.Tensor, tf.Tensor]:
    """Choose `k` centers per class, each the farthest from all that is covered so far.

    The greedy 2-approximation of k-center (Gonzalez, 1985), run for all classes side by side. Of equally far
    candidates the first one is taken.

    Args:
        pool: float [n, C, D], n candidates of each class.
        covered: float [m, C, D], the centers already used; m = 0 is not allowed (use the origin).
        k: number of centers to choose, 1..n, with static n.
        normalized: measure distances between unit vectors; the centers returned are still the raw vectors.

    Returns:
        Indices into the pool, int32 [k, C] in order of choice, and the centers, float32 [k, C, D].

    Raises:
        ValueError: if k is not in 1..n or nothing is covered.
    """
    pool, covered = tf.cast(pool, tf.float32), tf.cast(covered, tf.float32)
    if not 1 <= k <= pool.shape[0]:
        raise ValueError(f"k is {k}; expected 1..{pool.shape[0]}, the number of candidates per class")
    if not covered.shape[0]:
        raise ValueError("covered is empty; expected at least one point per class, such as the origin")
    points = normalize(pool, "unit") if normalized else pool
    distances = _distances_to_covered(points, covered, normalized)
    indices = []
    for _ in range(k):
        farthest = tf.argmax(distances, axis=0, output_type=tf.int32)
        indices.append(farthest)
        distances = tf.minimum(distances, squared_norms(points - _pick(points, farthest)))
    centers = tf.stack([_pick(pool, index) for index in indices])
    return tf.stack(indices), centers


def _distances_to_covered(points: tf.Tensor, covered: tf.Tensor, normalized: bool) -> tf.Tensor:
    """Squared distance [n, C] of each point to the nearest covered one of its class."""
    nearest = tf.fill(tf.shape(points)[:-1], points.dtype.max)
    for center in tf.unstack(covered):
        if normalized:
            distances = squared_norms(points - normalize(center, "unit"))
            # Unit vectors are all equally far from the origin; left to rounding, the tie would be broken at
            # random.
            at_origin = tf.reduce_all(tf.equal(center, 0.0), axis=-1)
            distances = tf.where(at_origin, tf.round(distances), distances)
        else:
            distances = squared_norms(points - center)
        nearest = tf.minimum(nearest, distances)
    return nearest


def _pick(points: tf.Tensor, indices: tf.Tensor) -> tf.Tensor:
    """Row `indices[c]` of each class c: [n, C, D], [C] -> [C, D]."""
    return tf.gather_nd(points, tf.stack([indices, tf.range(tf.size(indices))], axis=1))
