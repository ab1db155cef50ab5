"""Geometry of embeddings: normalisation, distances, pairs of classes, greedy k-center, coverage by proxies.

All results are float32, whatever the dtype of the vectors; `mean_cosine` is a NumPy function in float64.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt
import tensorflow as tf

NORMALIZATIONS: tuple[str, ...] = ("lipschitz", "unit", "l1", "none")
DISTANCES: tuple[str, ...] = ("euclidean", "squared_euclidean", "cosine")

_SMALLEST_SQUARED_NORM = 1e-12
# Vectors with larger components are scaled down first: their squares would be near the largest float32.
_LARGEST_PLAIN_COMPONENT = 2.0**50
# |r|^2 + |x|^2 - 2 r.x is off by rounding noise: up to 6 units of float32's epsilon times |r|^2 + |x|^2 were
# measured for D = 2..2048. Values up to 8 units cannot be told from zero, and are set to zero: unit vectors
# nearer than 1.4e-3 coincide.
_NOISE = 8.0 * float(np.finfo(np.float32).eps)
# Unit vectors of one direction, computed from vectors of different lengths, are less far apart.
_NOISE_OF_UNIT_VECTORS = 32.0 * float(np.finfo(np.float32).eps)
# Squares below this times the largest |r|^2 + |x|^2 are computed in float64, as the noise may be more than
# 0.04 % of the distance. For unit vectors it is a distance of 0.044, beyond the noise of TensorFloat-32 too.
_NEAR = 2.0**-10


def check_normalization(kind: str, option: str = "normalization") -> None:
    """Raises `ValueError`, naming the option, unless `kind` is one of `NORMALIZATIONS`."""
    if kind not in NORMALIZATIONS:
        raise ValueError(f"{option} is {kind!r}; expected one of {', '.join(NORMALIZATIONS)}")


def normalize(embeddings: tf.Tensor, kind: str) -> tf.Tensor:
    """Normalises vectors along the last axis.

    Args:
        embeddings: [..., D], any float dtype.
        kind: `'lipschitz'` is `x / max(1, |x|)`: longer vectors are projected onto the unit ball, others do
            not change, so the map is 1-Lipschitz. `'unit'` is `x / sqrt(max(|x|^2, 1e-12))`. `'l1'` is
            `x / max(1, |x|_1)` with the sum of the absolute values. `'none'` returns the embeddings.

    Returns:
        float32 [..., D]. The zero vector stays zero. All gradients are finite; with `'unit'` that of a vector
        shorter than 1e-6 is up to a million times as long as that of a unit vector.

    Raises:
        ValueError: if `kind` is unknown.
    """
    check_normalization(kind)
    embeddings = to_float32(embeddings)
    if kind == "none":
        return embeddings
    scaled, scale = _without_overflow(embeddings)
    if kind == "l1":
        sums = tf.reduce_sum(tf.abs(scaled), axis=-1, keepdims=True)
        outside = sums * scale > 1.0
        return tf.where(outside, scaled / tf.where(outside, sums, 1.0), embeddings)
    squared_norm = tf.reduce_sum(tf.square(scaled), axis=-1, keepdims=True)
    if kind == "unit":
        return scaled * tf.math.rsqrt(tf.maximum(squared_norm, _SMALLEST_SQUARED_NORM))
    outside = squared_norm * scale > 1.0
    # The inner `where` keeps the unused branch, and so its gradient, finite.
    norm = tf.sqrt(tf.where(outside, squared_norm, 1.0))
    return tf.where(outside, scaled / norm, embeddings)


def to_float32(vectors: tf.Tensor) -> tf.Tensor:
    """Casts vectors [..., D] to float32.

    The gradient of float16 vectors shorter than 1e-6, which `normalize` may make very long, is clipped to
    finite numbers. Other gradients that overflow float16 become infinite, as loss scaling expects.

    A loss that uses embeddings in several places casts them once, so that the gradients of all places are
    added before they are rounded.
    """
    vectors = tf.convert_to_tensor(vectors)
    return _from_float16(vectors) if vectors.dtype == tf.float16 else tf.cast(vectors, tf.float32)


@tf.custom_gradient
def _from_float16(vectors: tf.Tensor) -> tuple[tf.Tensor, Callable[[tf.Tensor], tf.Tensor]]:
    result = tf.cast(vectors, tf.float32)

    def gradient(upstream: tf.Tensor) -> tf.Tensor:
        is_short = squared_norms(result)[..., tf.newaxis] < _SMALLEST_SQUARED_NORM
        return tf.where(is_short, tf.saturate_cast(upstream, tf.float16), tf.cast(upstream, tf.float16))

    return result, gradient


def _without_overflow(embeddings: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
    """Scales large vectors down, so that their squares are finite; returns them and their divisors."""
    largest = tf.reduce_max(tf.abs(embeddings), axis=-1, keepdims=True)
    scale = tf.stop_gradient(tf.where(largest > _LARGEST_PLAIN_COMPONENT, largest, 1.0))
    return embeddings / scale, scale


def pairwise_distances(
    references: tf.Tensor, samples: tf.Tensor | None = None, kind: str = "euclidean"
) -> tf.Tensor:
    """Computes the distance of every reference (row) to every sample (column).

    Args:
        references: [R, D], any float dtype.
        samples: [B, D]; None compares the references with each other.
        kind: `'euclidean'`, `'squared_euclidean'`, or `'cosine'`: the negative inner product `-r.x`, which is
            the negative cosine similarity of unit vectors (nothing is normalised here).

    Returns:
        float32 [R, B]. Euclidean distances are off by at most 0.04 %, their gradients by 0.1 %. Points nearer
        than 1e-3 (|r|^2 + |x|^2)^(1/2), for unit vectors 1.4e-3, coincide: distance and gradient are exactly
        0. So is the diagonal when references are compared with each other.

    Raises:
        ValueError: if `kind` is unknown.
    """
    if kind not in DISTANCES:
        raise ValueError(f"distance is {kind!r}; expected one of {', '.join(DISTANCES)}")
    references = tf.cast(references, tf.float32)
    others = references if samples is None else tf.cast(samples, tf.float32)
    products = tf.matmul(references, others, transpose_b=True)
    if kind == "cosine":
        return -products
    row_sizes, column_sizes = squared_norms(references), squared_norms(others)
    sizes = row_sizes[:, tf.newaxis] + column_sizes[tf.newaxis, :]
    squared = sizes - 2.0 * products
    apart = squared > _NOISE * tf.stop_gradient(sizes)
    if samples is None:
        apart = tf.linalg.set_diag(apart, tf.zeros(tf.shape(apart)[:1], tf.bool))
    largest = tf.stop_gradient(tf.reduce_max(row_sizes) + tf.reduce_max(column_sizes))
    # The gradient of sqrt is infinite at 0, also behind a `where`: another number stands in for zeros.
    squared = tf.where(apart, squared, 1.0 + largest)
    values, apart = _sharpened(tf.stop_gradient(squared), apart, _NEAR * largest, references, others)
    squared = _with_values(squared, values)
    return tf.where(apart, squared if kind == "squared_euclidean" else tf.sqrt(squared), 0.0)


def _sharpened(
    squared: tf.Tensor, apart: tf.Tensor, nearest: tf.Tensor, references: tf.Tensor, others: tf.Tensor
) -> tuple[tf.Tensor, tf.Tensor]:
    """Computes squared distances below `nearest` in float64, if there are some; returns all, and `apart`."""
    return tf.cond(
        tf.reduce_min(squared) < nearest,
        lambda: _in_float64(squared, apart, nearest, references, others),
        lambda: (squared, apart),
    )


# A function of its own, as all nodes of a branch cost time even where it is not taken.
@tf.function(autograph=False, experimental_attributes={"_noinline": True})
def _in_float64(
    squared: tf.Tensor, apart: tf.Tensor, nearest: tf.Tensor, references: tf.Tensor, others: tf.Tensor
) -> tuple[tf.Tensor, tf.Tensor]:
    """Returns what `_sharpened` does if there are some."""
    rows, columns = tf.cast(references, tf.float64), tf.cast(others, tf.float64)
    sizes = squared_norms(rows)[:, tf.newaxis] + squared_norms(columns)[tf.newaxis, :]
    exact = sizes - 2.0 * tf.matmul(rows, columns, transpose_b=True)
    is_near, coincide = squared < nearest, exact <= _NOISE * sizes
    sharp = tf.where(is_near & ~coincide, tf.cast(exact, tf.float32), squared)
    return sharp, apart & ~(is_near & coincide)


@tf.custom_gradient
def _with_values(tensor: tf.Tensor, values: tf.Tensor) -> tuple[tf.Tensor, Callable[..., Any]]:
    """Replaces the values of a tensor, and keeps its gradient."""
    return tf.identity(values), lambda upstream: (upstream, None)


def squared_norms(vectors: tf.Tensor) -> tf.Tensor:
    """Computes squared Euclidean norms along the last axis: [..., D] to [...]."""
    return tf.reduce_sum(tf.square(vectors), axis=-1)


def pair_masks(reference_labels: tf.Tensor, labels: tf.Tensor | None = None) -> tuple[tf.Tensor, tf.Tensor]:
    """Marks positive and negative pairs.

    Args:
        reference_labels: int [R], class of each row.
        labels: int [B], class of each column; None compares the references with each other, where no
            reference is paired with itself.

    Returns:
        Positives and negatives, bool [R, B] each.
    """
    others = reference_labels if labels is None else labels
    same = tf.equal(reference_labels[:, tf.newaxis], others[tf.newaxis, :])
    positives = same
    if labels is None:
        positives = tf.linalg.set_diag(same, tf.zeros(tf.shape(same)[:1], tf.bool))
    return positives, tf.logical_not(same)


def greedy_k_center(
    pool: tf.Tensor, covered: tf.Tensor, k: int, normalized: bool = False
) -> tuple[tf.Tensor, tf.Tensor]:
    """Chooses `k` centers per class, each the candidate that is farthest from all points covered so far.

    The greedy 2-approximation of k-center (Gonzalez, 1985), for all classes at once. Of equally far
    candidates the first one is taken. Distances of unit vectors that differ by less than 4e-6 count as equal,
    since rounding may make the difference.

    Args:
        pool: float [n, C, D], n candidates of each class.
        covered: float [m, C, D], the points already covered; m is at least 1 (use the origin).
        k: number of centers to choose, 1..n, with static n.
        normalized: True to measure distances between unit vectors; the returned centers are raw vectors.

    Returns:
        Indices into the pool, int32 [k, C] in order of choice, and the centers, float32 [k, C, D].

    Raises:
        ValueError: if k is not in 1..n, or nothing is covered.
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
        farthest = _farthest(distances, noise=_NOISE_OF_UNIT_VECTORS if normalized else 0.0)
        indices.append(farthest)
        distances = tf.minimum(distances, squared_norms(points - _pick(points, farthest)))
    centers = tf.stack([_pick(pool, index) for index in indices])
    return tf.stack(indices), centers


def _distances_to_covered(points: tf.Tensor, covered: tf.Tensor, normalized: bool) -> tf.Tensor:
    """Computes the squared distance [n, C] of each point to the nearest covered point of its class."""
    nearest = tf.fill(tf.shape(points)[:-1], points.dtype.max)
    for center in tf.unstack(covered):
        center = normalize(center, "unit") if normalized else center
        nearest = tf.minimum(nearest, squared_norms(points - center))
    return nearest


def _farthest(squared_distances: tf.Tensor, noise: float) -> tf.Tensor:
    """Returns the first of the candidates [n, C] whose distance is the largest or nearly so, int32 [C]."""
    if noise:
        distances = tf.sqrt(squared_distances)
        is_farthest = distances >= tf.reduce_max(distances, axis=0) - noise
        squared_distances = tf.cast(is_farthest, tf.int32)
    return tf.argmax(squared_distances, axis=0, output_type=tf.int32)


def _pick(points: tf.Tensor, indices: tf.Tensor) -> tf.Tensor:
    """Gathers point `indices[c]` of each class c: [n, C, D], [C] to [C, D]."""
    return tf.gather_nd(points, tf.stack([indices, tf.range(tf.size(indices))], axis=1))


def covering_radius(embeddings: tf.Tensor, labels: tf.Tensor, proxies: tf.Tensor) -> tf.Tensor:
    """Computes the largest distance of an image of a class to its nearest proxy of the class.

    Args:
        embeddings: float [N, D], normalised in the same way as the proxies.
        labels: int [N], classes 0..C-1.
        proxies: float [K, C, D], with static K.

    Returns:
        float32 [C]; NaN for a class without images. The figure to report is the mean over classes.
    """
    embeddings, proxies = tf.cast(embeddings, tf.float32), tf.cast(proxies, tf.float32)
    # One proxy per class at a time: [K, N, D] would be the largest tensor of a run.
    to_proxies = [squared_norms(embeddings - tf.gather(of_class, labels)) for of_class in tf.unstack(proxies)]
    nearest = tf.reduce_min(tf.stack(to_proxies), axis=0)
    num_classes = tf.shape(proxies)[1]
    farthest = tf.math.unsorted_segment_max(nearest, labels, num_classes)
    images = tf.math.unsorted_segment_sum(tf.ones_like(nearest), labels, num_classes)
    return tf.where(images > 0, tf.sqrt(tf.maximum(farthest, 0.0)), float("nan"))


def proxy_spread(proxies: tf.Tensor) -> tf.Tensor:
    """Computes the mean distance between the proxies of a class, over its K(K-1)/2 pairs.

    Args:
        proxies: float [K, C, D], with static K.

    Returns:
        float32 [C]; 0 for one proxy per class.
    """
    proxies = tf.cast(proxies, tf.float32)
    k = proxies.shape[0]
    total = tf.zeros(tf.shape(proxies)[1:2], tf.float32)
    for first in range(k):
        for second in range(first + 1, k):
            total += tf.sqrt(squared_norms(proxies[first] - proxies[second]))
    return total / max(1, k * (k - 1) // 2)


def mean_cosine(embeddings: npt.NDArray[np.float32]) -> float:
    """Computes the mean cosine of the angle between two different embeddings; 1 if all point the same way.

    With u the embeddings at unit length, it is `(|Σ u|² - Σ |u|²) / (N (N - 1))`, in float64. An embedding of
    length 0 has no direction; its cosine with every other embedding counts as 1.

    Args:
        embeddings: float [N, D].

    Returns:
        A number in [-1, 1]; 1 for fewer than two embeddings; NaN if an embedding is not finite.
    """
    values = np.asarray(embeddings, np.float64)
    lengths = np.linalg.norm(values, axis=1)
    if not np.isfinite(lengths).all():
        return float("nan")
    units = values[lengths > 0] / lengths[lengths > 0, np.newaxis]
    count, directed = len(values), len(units)
    if count < 2:
        return 1.0
    undirected = count * (count - 1) - directed * (directed - 1)
    total = float(np.sum(np.sum(units, axis=0) ** 2) - directed + undirected)
    return total / (count * (count - 1))
