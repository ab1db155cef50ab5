"""Measures of classes and their proxies in an embedding space."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import tensorflow as tf

from ccp_dml.geometry import covering_radius, pairwise_distances, proxy_spread

Floats = npt.NDArray[np.float32]
Ints = npt.NDArray[np.int64]

COVERED = 0.95


def class_spread(embeddings: Floats, labels: Ints, num_classes: int) -> Floats:
    """Mean distance between two different images of a class.

    Args:
        embeddings: [N, D].
        labels: [N], 0..C-1; every class has two images at least.
        num_classes: C.

    Returns:
        [C].
    """
    spreads = []
    for label in range(num_classes):
        images = embeddings[labels == label]
        distances = np.asarray(pairwise_distances(tf.constant(images)), np.float64)
        spreads.append(distances.sum() / (len(images) * (len(images) - 1)))
    return np.array(spreads, np.float32)


def quantile_radius(embeddings: Floats, labels: Ints, proxies: Floats, quantile: float = COVERED) -> Floats:
    """Distance within which a fraction of the images of a class has a proxy of the class.

    With `quantile=1` it is the covering radius; a smaller one ignores the few images that the network has put
    among those of another class.

    Args:
        embeddings: [N, D].
        labels: [N], 0..C-1; every class has an image.
        proxies: [K, C, D].
        quantile: above 0, at most 1.

    Returns:
        [C], quantiles of the distances to the nearest proxy, interpolated linearly between images.
    """
    radii = []
    for label in range(proxies.shape[1]):
        images = tf.constant(embeddings[labels == label])
        nearest = np.asarray(pairwise_distances(tf.constant(proxies[:, label]), images)).min(axis=0)
        radii.append(np.quantile(nearest, quantile))
    return np.array(radii, np.float32)


def coverage(embeddings: Floats, labels: Ints, proxies: Floats) -> dict[str, float]:
    """Coverage of classes by their proxies, in units of the spread of a class, averaged over classes.

    Args:
        embeddings: [N, D].
        labels: [N], 0..C-1; every class has two images at least.
        proxies: [K, C, D].

    Returns:
        `radius`, the covering radius; `radius_95`, the radius of 95 % of the images; `proxy_spread`, the mean
        distance between two proxies of a class (1: as between two images, 0: they coincide); and
        `class_spread`, the unit itself.
    """
    unit = class_spread(embeddings, labels, proxies.shape[1])
    radius = np.asarray(covering_radius(tf.constant(embeddings), tf.constant(labels), tf.constant(proxies)))
    return {
        "radius": float(np.mean(radius / unit)),
        "radius_95": float(np.mean(quantile_radius(embeddings, labels, proxies) / unit)),
        "proxy_spread": float(np.mean(np.asarray(proxy_spread(tf.constant(proxies))) / unit)),
        "class_spread": float(np.mean(unit)),
    }


def nearest_proxy_accuracy(embeddings: Floats, labels: Ints, proxies: Floats) -> float:
    """Fraction of the images whose nearest proxy of all classes belongs to their own class."""
    per_class, classes, _ = proxies.shape
    rows = tf.reshape(tf.constant(proxies), [per_class * classes, -1])
    nearest = np.asarray(tf.argmin(pairwise_distances(rows, tf.constant(embeddings)), axis=0))
    return float(np.mean(nearest % classes == labels))
