"""Tensor code of the search: one block of queries against one tile of the gallery.

A tile is [gallery, D + 1]: rows g, then -|g|^2. Each `tf.function` is traced once for all shapes, so that
sets and blocks of many sizes cost no retracing.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

import numpy as np
import tensorflow as tf

from ccp_dml.evaluation.blocks import LANES

# Score of padding rows: below that of every real row, and finite, so that no product turns it into a NaN.
PADDING_SCORE = -3e38

MATRIX = tf.TensorSpec([None, None], tf.float32)
INDICES = tf.TensorSpec([None, None], tf.int32)
VECTOR = tf.TensorSpec([None], tf.float32)
INTEGER = tf.TensorSpec([], tf.int32)
_INDEX_VECTOR = tf.TensorSpec([None], tf.int32)

# Candidates: scores and ascending gallery indices, both [b, c], and the best score [b] of the rows left out.
Candidates = tuple[tf.Tensor, tf.Tensor, tf.Tensor]


@contextlib.contextmanager
def full_float32() -> Iterator[None]:
    """Context of full float32 products: TensorFloat-32, the default on GPUs, keeps 10 bits of a factor."""
    before = tf.config.experimental.tensor_float_32_execution_enabled()
    tf.config.experimental.enable_tensor_float_32_execution(False)
    try:
        yield
    finally:
        tf.config.experimental.enable_tensor_float_32_execution(before)


@tf.function(input_signature=[MATRIX, INTEGER], autograph=False)
def as_tile(rows: tf.Tensor, size: tf.Tensor) -> tf.Tensor:
    """Makes a tile of gallery rows, padded to `size`: its product with [2 q, 1] is the complete score."""
    squares = tf.reduce_sum(tf.square(rows), axis=1, keepdims=True)
    padding = [[0, size - tf.shape(rows)[0]], [0, 0]]
    scores_at_zero = tf.pad(-squares, padding, constant_values=PADDING_SCORE)
    return tf.concat([tf.pad(rows, padding), scores_at_zero], axis=1)


@tf.function(input_signature=[MATRIX, MATRIX], autograph=False)
def score(queries: tf.Tensor, tile: tf.Tensor) -> tf.Tensor:
    """2 q.g - |g|^2 of all pairs, float32 [b, gallery]: a larger score is nearer."""
    ones = tf.ones_like(queries[:, :1])
    return tf.matmul(tf.concat([2.0 * queries, ones], axis=1), tile, transpose_b=True)


@tf.function(input_signature=[MATRIX, INTEGER, INTEGER], autograph=False)
def best_of_rows(scores: tf.Tensor, first: tf.Tensor, count: tf.Tensor) -> Candidates:
    """The `count` best scores of a tile; nothing is left out of a tile of as many columns."""
    found, places = tf.math.top_k(scores, tf.minimum(count + 1, tf.shape(scores)[1]))
    left_out = tf.pad(found[:, count:], [[0, 0], [0, 1]], constant_values=PADDING_SCORE)[:, 0]
    columns = tf.sort(places[:, :count], axis=1)
    return tf.gather(scores, columns, batch_dims=1), first + columns, left_out


def best_of_chunks(scores: tf.Tensor, first: tf.Tensor, count: tf.Tensor, chunk: int) -> Candidates:
    """As `best_of_rows`, in two stages.

    Chunks do not follow one another in the order of the gallery: if the last of the best has the same score
    as the best of those left out, the choice between them is not settled.

    Args:
        scores: float32 or bfloat16 [b, gallery]; the results are float32.
        first: gallery index of the first column.
        count: number of scores to find.
        chunk: columns of a chunk.
    """
    return choose_from_chunks[scores.dtype](scores, maxima_of_chunks(scores, chunk), first, count)


def maxima_of_chunks(scores: tf.Tensor, chunk: int) -> tf.Tensor:
    """The best score of each chunk, [b, gallery / chunk]; scores of any floating type.

    A chunk is every `LANES`-th column of a stretch of `chunk * LANES` columns, so its maximum is that of a
    window of an image with `LANES` channels. oneDNN vectorises pooling, which then takes less time than
    `tf.reduce_max`, above all in bfloat16. The size of the window is an attribute, so this runs eagerly: a
    trace would fix it.
    """
    stretches = tf.reshape(scores, [scores.shape[0], -1, chunk, LANES])
    maxima = tf.nn.max_pool2d(stretches, [1, chunk], [1, chunk], "VALID")
    return tf.reshape(maxima, [scores.shape[0], -1])


def _choose_from_chunks(
    scores: tf.Tensor, maxima: tf.Tensor, first: tf.Tensor, count: tf.Tensor
) -> Candidates:
    size, chunk = tf.shape(scores)[0], tf.shape(scores)[1] // tf.shape(maxima)[1]
    best, chunks = tf.math.top_k(tf.cast(maxima, tf.float32), count + 1)
    chunks = chunks[:, :-1]
    starts = chunks // LANES * (chunk * LANES) + chunks % LANES
    columns = tf.reshape(starts[:, :, tf.newaxis] + LANES * tf.range(chunk), [size, -1])
    survivors = tf.cast(tf.gather(scores, columns, batch_dims=1), tf.float32)
    found, places = tf.math.top_k(survivors, count + 1)
    left_out = tf.maximum(best[:, -1], found[:, -1])
    columns = tf.sort(tf.gather(columns, places[:, :-1], batch_dims=1), axis=1)
    kept = tf.cast(tf.gather(scores, columns, batch_dims=1), tf.float32)
    return kept, first + columns, left_out


# The second stage of `best_of_chunks`, by the type of the scores.
choose_from_chunks = {
    dtype: tf.function(
        _choose_from_chunks,
        input_signature=[*[tf.TensorSpec([None, None], dtype)] * 2, INTEGER, INTEGER],
        autograph=False,
    )
    for dtype in (tf.float32, tf.bfloat16)
}


@tf.function(input_signature=[MATRIX, INDICES, VECTOR] * 2, autograph=False)
def merge(
    scores: tf.Tensor,
    indices: tf.Tensor,
    left_out: tf.Tensor,
    later_scores: tf.Tensor,
    later_indices: tf.Tensor,
    later_left_out: tf.Tensor,
) -> Candidates:
    """The best of the candidates of earlier tiles and of a later one."""
    count = tf.shape(scores)[1]
    all_scores = tf.concat([scores, later_scores], axis=1)
    best, places = tf.math.top_k(all_scores, count + 1)
    places = tf.sort(places[:, :-1], axis=1)
    all_indices = tf.concat([indices, later_indices], axis=1)
    return (
        tf.gather(all_scores, places, batch_dims=1),
        tf.gather(all_indices, places, batch_dims=1),
        tf.reduce_max([left_out, later_left_out, best[:, -1]], axis=0),
    )


@tf.function(input_signature=[MATRIX, MATRIX, INDICES, _INDEX_VECTOR], autograph=False)
def rank(
    queries: tf.Tensor, gallery: tf.Tensor, candidates: tf.Tensor, self_rows: tf.Tensor
) -> tuple[tf.Tensor, tf.Tensor]:
    """Sorts ascending candidates by squared difference: (indices, squared distances), both [b, c].

    The query itself and padding rows become index -1 with an infinite distance.
    """
    size = tf.shape(gallery)[0]
    rows = tf.gather(gallery, tf.minimum(candidates, size - 1))
    squared = tf.reduce_sum(tf.math.squared_difference(rows, queries[:, tf.newaxis]), axis=2)
    is_excluded = (candidates >= size) | (candidates == self_rows[:, tf.newaxis])
    squared = tf.where(is_excluded, np.float32(np.inf), squared)
    negated, places = tf.math.top_k(-squared, tf.shape(candidates)[1])
    indices = tf.gather(candidates, places, batch_dims=1)
    return tf.where(tf.math.is_inf(negated), -1, indices), -negated
