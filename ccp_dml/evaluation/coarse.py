"""Tensor code of the first look in bfloat16: scores, the best of them, and how far they may be off.

A tile is bfloat16 [gallery, D + 3 or more]: rows g, then -|g|^2 in three parts, then zeros.
"""

from __future__ import annotations

import tensorflow as tf

from ccp_dml.evaluation import kernels

# Numbers that a matrix unit multiplies and adds at once; rows that end within one cost half as much again.
_UNIT = 32
# Half the distance to the next number, as a share of a number.
_COARSE_ROUNDING, _FINE_ROUNDING = 2.0**-8, 2.0**-24
# Norms are raised by it: squares below 2^-126 count as zero, and with them what is below 2^-63 in a norm.
_UNDERFLOW = 2.0**-40

_MATRIX = tf.TensorSpec([None, None], tf.float32)
_COARSE_MATRIX = tf.TensorSpec([None, None], tf.bfloat16)
_INDICES = tf.TensorSpec([None, None], tf.int32)
_VECTOR = tf.TensorSpec([None], tf.float32)
_INTEGER = tf.TensorSpec([], tf.int32)


@tf.function(input_signature=[_MATRIX, _INTEGER], autograph=False)
def as_tile(rows: tf.Tensor, size: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
    """As `kernels.as_tile`, bfloat16 [size, D + 3 or more], and the largest norms, float32 [3], see `_norms`.

    -|g|^2 is in three parts, each the rounding of what those before it leave.
    """
    tile = kernels.as_tile(rows, size)
    rest, parts = tile[:, -1:], []
    for _ in range(3):
        parts.append(tf.cast(rest, tf.bfloat16))
        rest -= tf.cast(parts[-1], tf.float32)
    coarse = tf.cast(tile[:, :-1], tf.bfloat16)
    norms = tf.reduce_max(_norms(tile[:, :-1], tf.cast(coarse, tf.float32)), axis=1)
    return _fill_units(tf.concat([coarse, *parts], axis=1)), norms


@tf.function(input_signature=[_MATRIX, _COARSE_MATRIX], autograph=False)
def score(queries: tf.Tensor, tile: tf.Tensor) -> tf.Tensor:
    """As `kernels.score`, of a coarse tile, bfloat16 [b, gallery]."""
    ones = tf.ones([tf.shape(queries)[0], 3], tf.bfloat16)
    block = tf.concat([tf.cast(2.0 * queries, tf.bfloat16), ones], axis=1)
    return tf.matmul(_fill_units(block), tile, transpose_b=True)


def _fill_units(rows: tf.Tensor) -> tf.Tensor:
    return tf.pad(rows, [[0, 0], [0, -tf.shape(rows)[1] % _UNIT]])


@tf.function(input_signature=[_MATRIX, _VECTOR], autograph=False)
def errors(queries: tf.Tensor, largest: tf.Tensor) -> tf.Tensor:
    """A bound [b] of the errors of coarse scores, before these are rounded, and of float32 distances."""
    doubled = 2.0 * queries
    rounded = tf.cast(tf.cast(doubled, tf.bfloat16), tf.float32)
    norm, rounded_norm, change = tf.unstack(_norms(doubled, rounded), 3)
    row_norm, rounded_row_norm, row_change = tf.unstack(largest, 3)
    products = change * rounded_row_norm + norm * row_change
    terms = tf.cast(tf.shape(queries)[1] + 8, tf.float32)
    reach = rounded_norm + norm + rounded_row_norm + row_norm + _UNDERFLOW
    return products + 4.0 * _FINE_ROUNDING * terms * tf.square(reach)


@tf.function(input_signature=[_MATRIX, _VECTOR, _VECTOR], autograph=False)
def least_distances(queries: tf.Tensor, left_out: tf.Tensor, largest: tf.Tensor) -> tf.Tensor:
    """A bound from below [b] of the squared distances of rows whose coarse scores are at most `left_out`."""
    highest_score = left_out + _COARSE_ROUNDING * tf.abs(left_out) + errors(queries, largest)
    return tf.reduce_sum(tf.square(queries), axis=1) - highest_score


def _norms(rows: tf.Tensor, rounded: tf.Tensor) -> tf.Tensor:
    """Norms of rows, of their roundings, and of the difference, float32 [3, n]."""
    return tf.norm(tf.stack([rows, rounded, rows - rounded]), axis=2)


def best_of_chunks(
    scores: tf.Tensor, first: tf.Tensor, count: tf.Tensor, chunk: int
) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
    """As `kernels.best_of_chunks`, of coarse scores."""
    return best_of_given_chunks(scores, kernels.maxima_of_chunks(scores, chunk), first, count)


best_of_given_chunks = tf.function(
    kernels.choose_from_chunks,
    input_signature=[_COARSE_MATRIX, _COARSE_MATRIX, _INTEGER, _INTEGER],
    autograph=False,
)


@tf.function(input_signature=[_MATRIX, _INDICES, _VECTOR] * 2, autograph=False)
def merge(
    scores: tf.Tensor,
    indices: tf.Tensor,
    left_out: tf.Tensor,
    later_scores: tf.Tensor,
    later_indices: tf.Tensor,
    later_left_out: tf.Tensor,
) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
    """As `kernels.merge`, and the best score of what is left out."""
    best = tf.math.top_k(tf.concat([scores, later_scores], axis=1), tf.shape(scores)[1] + 1)[0][:, -1]
    kept = kernels.merge(scores, indices, later_scores, later_indices)
    return (*kept, tf.reduce_max([left_out, later_left_out, best], axis=0))
