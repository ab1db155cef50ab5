"""Miners, which select the negatives of each anchor. Positives stay as they are."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable

import tensorflow as tf

from ccp_dml.losses.pairs import Pairs

Miner = Callable[[Pairs], Pairs]
MINERS: tuple[str, ...] = ("hard_negatives", "distance_weighted")

# Wu et al. 2017: distances below the first weigh as much as it, as noise would dominate their weights;
# negatives beyond the second have no loss.
_NEAREST, _FARTHEST = 0.5, 1.4
# Where the density of distances on the sphere has its pole or zero.
_ANTIPODES = 1.9999


def make_miner(name: str, seed: int = 0) -> Miner:
    """Returns a miner, a function from pairs to the same pairs with fewer negatives.

    Args:
        name: one of `MINERS`.
        seed: seed of a miner that draws.

    Raises:
        ValueError: if the name is unknown.
    """
    if name == "hard_negatives":
        return hard_negatives
    if name == "distance_weighted":
        return functools.partial(distance_weighted, seed=seed)
    raise ValueError(f"miner is {name!r}; expected None or one of {', '.join(MINERS)}")


def hard_negatives(pairs: Pairs) -> Pairs:
    """Keeps the nearest negatives of each anchor, as many as the anchor with the most positives has.

    An anchor with fewer negatives keeps all of them. Negatives that tie with the last one kept are kept too,
    so the result does not depend on the order of the batch.
    """
    wanted = tf.maximum(1, tf.reduce_max(tf.math.count_nonzero(pairs.positives, axis=1, dtype=tf.int32)))
    available = tf.math.count_nonzero(pairs.negatives, axis=1, dtype=tf.int32)
    nearest_first = tf.sort(tf.where(pairs.negatives, pairs.distances, pairs.distances.dtype.max), axis=1)
    count = tf.minimum(wanted, available)[:, tf.newaxis]
    among_first = tf.range(tf.shape(nearest_first)[1]) < count
    threshold = tf.reduce_max(
        tf.where(among_first, nearest_first, pairs.distances.dtype.min), axis=1, keepdims=True
    )
    kept = pairs.negatives & (pairs.distances <= threshold)
    return dataclasses.replace(pairs, negatives=kept)


def distance_weighted(pairs: Pairs, seed: int = 0) -> Pairs:
    """Draws negatives of each anchor so that all distances are equally frequent.

    A negative at the distance d is drawn with a probability proportional to `1 / q(max(d, 0.5))`, with q the
    density of distances between random unit vectors of n dimensions, `d^(n-2) (1 - d^2/4)^((n-3)/2)`;
    negatives with d >= 1.4 are drawn only if the anchor has no nearer one. Each anchor gets as many negatives
    as it has positives, at least one, drawn without replacement. The draw depends on the seed and the
    distances only.

    Wu et al., "Sampling matters in deep embedding learning", ICCV 2017.

    Args:
        pairs: pairs of known `embedding_size`; a squared or cosine distance is converted to d.
        seed: non-negative.

    Raises:
        ValueError: if the dimension of the embeddings is not known.
    """
    if not pairs.embedding_size:
        raise ValueError(
            "miner is 'distance_weighted', but the dimension of the embeddings is unknown; "
            "expected embeddings with a static last dimension"
        )
    distances = _euclidean(tf.stop_gradient(pairs.distances), pairs.distance)
    near = pairs.negatives & (distances < _FARTHEST)
    eligible = tf.where(tf.reduce_any(near, axis=1, keepdims=True), near, pairs.negatives)
    # The largest log weights with Gumbel noise are a draw without replacement.
    keys = _log_weights(distances, pairs.embedding_size) + _gumbel_noise(pairs.distances, seed)
    order = tf.argsort(tf.where(eligible, keys, keys.dtype.min), axis=1, direction="DESCENDING", stable=True)
    ranks = tf.argsort(order, axis=1)
    wanted = tf.maximum(1, tf.math.count_nonzero(pairs.positives, axis=1, dtype=tf.int32))
    return dataclasses.replace(pairs, negatives=eligible & (ranks < wanted[:, tf.newaxis]))


def _euclidean(distances: tf.Tensor, kind: str) -> tf.Tensor:
    if kind == "cosine":
        distances = 2.0 + 2.0 * distances
    return distances if kind == "euclidean" else tf.sqrt(tf.nn.relu(distances))


def _log_weights(distances: tf.Tensor, size: int) -> tf.Tensor:
    d = tf.clip_by_value(distances, _NEAREST, _ANTIPODES)
    return (2.0 - size) * tf.math.log(d) + (3.0 - size) / 2.0 * tf.math.log1p(-tf.square(d) / 4.0)


def _gumbel_noise(distances: tf.Tensor, seed: int) -> tf.Tensor:
    """Draws noise that depends on the bits of the distances, so that each step differs without a state."""
    bits = tf.reduce_sum(tf.bitcast(tf.stop_gradient(distances), tf.int32))
    uniform = tf.random.stateless_uniform(
        tf.shape(distances), seed=tf.stack([tf.constant(seed, tf.int32), bits]), minval=1e-30
    )
    return -tf.math.log(-tf.math.log(uniform))
