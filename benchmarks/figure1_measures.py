"""What the study of figure 1 measures of classes and proxies in a plane, or in any space."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import tensorflow as tf

from ccp_dml.geometry import covering_radius, pairwise_distances, proxy_spread

Floats = npt.NDArray[np.float32]
Ints = npt.NDArray[np.int64]

COVERED_SHARE = 0.95


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


def share_radius(embeddings: Floats, labels: Ints, proxies: Floats, share: float = COVERED_SHARE) -> Floats:
    """Distance within which a share of the images of a class has a proxy of the class.

    The covering radius is that of a share of 1; a smaller share passes over the few images that the network
    has put among those of another class.

    Args:
        embeddings: [N, D].
        labels: [N], 0..C-1; every class has an image.
        proxies: [K, C, D].
        share: above 0, at most 1.

    Returns:
        [C], the quantile of the distances to the nearest proxy, interpolated linearly between images.
    """
    radii = []
    for label in range(proxies.shape[1]):
        images = tf.constant(embeddings[labels == label])
        nearest = np.asarray(pairwise_distances(tf.constant(proxies[:, label]), images)).min(axis=0)
        radii.append(np.quantile(nearest, share))
    return np.array(radii, np.float32)


def coverage(embeddings: Floats, labels: Ints, proxies: Floats) -> dict[str, float]:
    """How proxies lie in their classes, in units of the spread of the class, averaged over classes.

    Args:
        embeddings: [N, D].
        labels: [N], 0..C-1; every class has two images at least.
        proxies: [K, C, D].

    Returns:
        `radius`, the covering radius; `radius_95`, that of 95 % of the images; `proxy_spread`, the mean
        distance between two proxies of a class (1: as far apart as two images of it are, 0: they coincide);
        and `class_spread`, the unit itself.
    """
    unit = class_spread(embeddings, labels, proxies.shape[1])
    radius = np.asarray(covering_radius(tf.constant(embeddings), tf.constant(labels), tf.constant(proxies)))
    return {
        "radius": float(np.mean(radius / unit)),
        "radius_95": float(np.mean(share_radius(embeddings, labels, proxies) / unit)),
        "proxy_spread": float(np.mean(np.asarray(proxy_spread(tf.constant(proxies))) / unit)),
        "class_spread": float(np.mean(unit)),
    }


def nearest_proxy_accuracy(embeddings: Floats, labels: Ints, proxies: Floats) -> float:
    """Share of the images whose nearest proxy, of all classes, is one of their own class."""
    per_class, classes, _ = proxies.shape
    rows = tf.reshape(tf.constant(proxies), [per_class * classes, -1])
    nearest = np.asarray(tf.argmin(pairwise_distances(rows, tf.constant(embeddings)), axis=0))
    return float(np.mean(nearest % classes == labels))
