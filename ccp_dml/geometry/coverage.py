"""How well proxies cover their classes."""

from __future__ import annotations

import tensorflow as tf

from ccp_dml.geometry.distances import squared_norms


def covering_radius(embeddings: tf.Tensor, labels: tf.Tensor, proxies: tf.Tensor) -> tf.Tensor:
    """Largest distance of an image of a class to its nearest proxy of that class.

    Args:
        embeddings: float [N, D]; normalise them and the proxies alike.
        labels: int [N], classes 0..C-1.
        proxies: float [K, C, D], with static K.

    Returns:
        float32 [C]; NaN for a class without an image. The figure to report is the mean over classes.
    """
    embeddings, proxies = tf.cast(embeddings, tf.float32), tf.cast(proxies, tf.float32)
    # One proxy per class at a time: [K, N, D] would be the largest object of a run.
    to_proxies = [squared_norms(embeddings - tf.gather(of_class, labels)) for of_class in tf.unstack(proxies)]
    nearest = tf.reduce_min(tf.stack(to_proxies), axis=0)
    num_classes = tf.shape(proxies)[1]
    farthest = tf.math.unsorted_segment_max(nearest, labels, num_classes)
    images = tf.math.unsorted_segment_sum(tf.ones_like(nearest), labels, num_classes)
    return tf.where(images > 0, tf.sqrt(tf.maximum(farthest, 0.0)), float("nan"))


def proxy_spread(proxies: tf.Tensor) -> tf.Tensor:
    """Mean distance between the proxies of a class, over its K(K-1)/2 pairs.

    Args:
        proxies: float [K, C, D], with static K.

    Returns:
        float32 [C]; 0 for a single proxy per class.
    """
    proxies = tf.cast(proxies, tf.float32)
    k = proxies.shape[0]
    total = tf.zeros(tf.shape(proxies)[1:2], tf.float32)
    for first in range(k):
        for second in range(first + 1, k):
            total += tf.sqrt(squared_norms(proxies[first] - proxies[second]))
    return total / max(1, k * (k - 1) // 2)
