"""How stale proxies are: how far the images that they were chosen from have moved since."""

from __future__ import annotations

import tensorflow as tf

from ccp_dml.geometry.normalization import normalize


def staleness(proxies: tf.Tensor, present: tf.Tensor, normalization: str = "none") -> float:
    """Mean distance from proxies to their images' present embeddings, relative to the proxies' spread.

    `mean_i |p_i - x_i| / mean_i |p_i - mean_j p_j|`, so 0 means that every image is where its proxy is and 1
    that images are as far from their proxies as the proxies are from their centre. It has no unit and does
    not depend on the scale of the embedding.

    Args:
        proxies: [N, D] the proxies.
        present: [N, D] row i = the present embedding of the image that proxy i was chosen from.
        normalization: what the loss does to embeddings before it measures distances.

    Returns:
        The staleness, non-negative; infinite if the proxies coincide while their images do not.

    Raises:
        ValueError: if the shapes differ.
    """
    proxies, present = tf.cast(proxies, tf.float32), tf.cast(present, tf.float32)
    if proxies.shape != present.shape:
        raise ValueError(f"{present.shape} embeddings are compared with {proxies.shape} proxies.")
    proxies, present = normalize(proxies, normalization), normalize(present, normalization)
    moved = float(tf.reduce_mean(tf.norm(proxies - present, axis=-1)))
    spread = float(tf.reduce_mean(tf.norm(proxies - tf.reduce_mean(proxies, axis=0), axis=-1)))
    if spread > 0:
        return moved / spread
    return float("inf") if moved > 0 else 0.0
