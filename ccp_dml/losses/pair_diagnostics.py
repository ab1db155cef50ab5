"""What a loss over pairs says of them."""

from __future__ import annotations

from collections.abc import Callable

import tensorflow as tf

from ccp_dml.losses.pairs import Pairs


def pair_diagnostics(
    formula: Callable[[Pairs], tf.Tensor], pairs: Pairs, embeddings: tf.Tensor
) -> dict[str, tf.Tensor]:
    """The figures of `MetricLoss.diagnostics`.

    Args:
        formula: pairs -> loss, a scalar; a pair is active if this has a gradient for its distance.
        pairs: those that the formula sees; their distances are reported.
        embeddings: float [B, D], raw.
    """
    with tf.GradientTape() as tape:
        tape.watch(pairs.distances)
        loss = formula(pairs)
    gradient = tape.gradient(loss, pairs.distances, unconnected_gradients="zero")
    counted = tf.cast(pairs.positives | pairs.negatives, tf.float32)
    active = tf.cast(tf.not_equal(gradient, 0.0), tf.float32) * counted
    totals = pairs.shards.sums([tf.reduce_sum(active), tf.reduce_sum(counted)])
    return {
        "active_pairs": tf.math.divide_no_nan(*totals),
        "positive_distances": pairs.shards.gather(tf.boolean_mask(pairs.distances, pairs.positives)),
        "negative_distances": pairs.shards.gather(tf.boolean_mask(pairs.distances, pairs.negatives)),
        "embedding_norm": tf.reduce_mean(tf.norm(tf.cast(embeddings, tf.float32), axis=-1)),
    }
