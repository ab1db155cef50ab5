"""Miners: which negatives of an anchor take part."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable

import tensorflow as tf

from ccp_dml.losses.pairs import Pairs


def hard_negatives(pairs: Pairs) -> Pairs:
    """Keep the nearest negatives of each anchor, as many as the anchor with the most positives has.

    An anchor with fewer negatives keeps all of them. Negatives that tie with the last one kept are kept too,
    so the choice does not depend on the order of the batch. Positives stay as they are.

    Args:
        pairs: pairs [A, S].

    Returns:
        The same pairs with fewer negatives.
    """
    wanted = tf.maximum(1, tf.reduce_max(tf.math.count_nonzero(pairs.positives, axis=1, dtype=tf.int32)))
    available = tf.math.count_nonzero(pairs.negatives, axis=1, dtype=tf.int32)
    nearest_first = tf.sort(tf.where(pairs.negatives, pairs.distances, pairs.distances.dtype.max), axis=1)
    last = tf.maximum(tf.minimum(wanted, available) - 1, 0)
    threshold = tf.gather(nearest_first, last, axis=1, batch_dims=1)
    kept = pairs.negatives & (pairs.distances <= threshold[:, tf.newaxis])
    return dataclasses.replace(pairs, negatives=kept)


MINERS: dict[str, Callable[[Pairs], Pairs]] = {"hard_negatives": hard_negatives}
