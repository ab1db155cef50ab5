"""Normalisation of embeddings: the one implementation that losses, models, evaluation and export share."""

from __future__ import annotations

from typing import Literal

import tensorflow as tf

Normalization = Literal["lipschitz", "unit", "l1", "none"]
NORMALIZATIONS: tuple[str, ...] = ("lipschitz", "unit", "l1", "none")

_SMALLEST_SQUARED_NORM = 1e-12
# Components beyond this are scaled down first: their squares would come near float32's largest value.
_LARGEST_PLAIN_COMPONENT = 2.0**50


def check_normalization(kind: str) -> None:
    """Raise ValueError unless `kind` is a known normalisation."""
    if kind not in NORMALIZATIONS:
        raise ValueError(f"normalization is {kind!r}; expected one of {', '.join(NORMALIZATIONS)}")


def normalize(embeddings: tf.Tensor, kind: str) -> tf.Tensor:
    """Normalise the last axis.

    Args:
        embeddings: [..., D], any float dtype.
        kind: `'lipschitz'` is `x / max(1, |x|)`: longer vectors are projected onto the unit ball, the others
            stay as they are, so that the map is 1-Lipschitz. `'unit'` is `x / sqrt(max(|x|^2, 1e-12))`.
            `'l1'` is `x / max(1, |x|_1)` with the sum of the absolute values: vectors whose sum is above 1
            are scaled to 1. `'none'` returns the embeddings.

    Returns:
        [..., D], float32. The zero vector stays zero. Its gradient, and every other, is finite.

    Raises:
        ValueError: if `kind` is unknown.
    """
    check_normalization(kind)
    embeddings = tf.cast(embeddings, tf.float32)
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
    # The inner `where` keeps the unused branch, and with it its gradient, finite.
    norm = tf.sqrt(tf.where(outside, squared_norm, 1.0))
    return tf.where(outside, scaled / norm, embeddings)


def _without_overflow(embeddings: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
    """Vectors of the same direction whose squares are finite, and the constant that each was divided by."""
    largest = tf.reduce_max(tf.abs(embeddings), axis=-1, keepdims=True)
    scale = tf.stop_gradient(tf.where(largest > _LARGEST_PLAIN_COMPONENT, largest, 1.0))
    return embeddings / scale, scale
