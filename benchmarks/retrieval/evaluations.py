"""Rows of the retrieval benchmark in TensorFlow: the bare product, this library, the original's way."""

from __future__ import annotations

import numpy as np
import tensorflow as tf

from benchmarks.retrieval.cases import Problem
from ccp_dml.evaluation.blocks import plan_search
from ccp_dml.evaluation.metrics import RECALL_AT, evaluate_retrieval

FAR_RECALL_AT = (*RECALL_AT, 10, 100, 1000)
ORIGINAL_BLOCK = 128

Values = dict[str, float]


def product(problem: Problem) -> Values:
    """All scores, in the blocks of a search in float32: the work that exact evaluation cannot avoid."""
    queries, gallery = problem.queries, problem.gallery
    plan = plan_search(len(queries), len(gallery), gallery.shape[1], int(problem.num_positives().max()))
    starts = range(0, len(gallery), plan.gallery)
    tiles = [tf.constant(gallery[start : start + plan.gallery]) for start in starts]
    for start in range(0, len(queries), plan.queries):
        block = tf.constant(queries[start : start + plan.queries])
        for tile in tiles:
            _corner_of_product(block, tile)
    return {}


@tf.function(input_signature=[tf.TensorSpec([None, None])] * 2, autograph=False)
def _corner_of_product(queries: tf.Tensor, gallery: tf.Tensor) -> tf.Tensor:
    # One element leaves the graph, so that the result is computed but not copied.
    return tf.matmul(queries, gallery, transpose_b=True)[0, 0]


def ours(problem: Problem, recall_at: tuple[int, ...] = RECALL_AT) -> Values:
    """The evaluation of this library."""
    rest = () if problem.is_self_retrieval else (None, problem.gallery, problem.gallery_labels)
    result = evaluate_retrieval(problem.queries, problem.query_labels, *rest, recall_at=recall_at)
    means = result.means()
    return {
        "P@1": means["precision_at_1"],
        "P@R": means["r_precision"],
        "MAP@R": means["map_at_r"],
        **{f"R@{k}": value for k, value in means["recall_at_k"].items()},
    }


def ours_far(problem: Problem) -> Values:
    """The same with R@k up to 1000."""
    return ours(problem, FAR_RECALL_AT)


def original(problem: Problem) -> Values:
    """The original's evaluation without its errors: top-k over whole rows, the first one dropped."""
    gallery, classes = tf.constant(problem.gallery), tf.constant(problem.gallery_labels, tf.int32)
    counts = problem.num_positives()
    largest_r, dropped = tf.constant(int(counts.max())), tf.constant(int(problem.is_self_retrieval))
    sums = np.zeros(3)
    for start in range(0, len(problem.queries), ORIGINAL_BLOCK):
        rows = slice(start, start + ORIGINAL_BLOCK)
        labels = tf.constant(problem.query_labels[rows], tf.int32)
        block, positives = tf.constant(problem.queries[rows]), tf.constant(counts[rows], tf.int32)
        sums += _original_block(block, labels, gallery, classes, positives, largest_r, dropped).numpy()
    return dict(zip(("P@1", "P@R", "MAP@R"), map(float, sums / np.sum(counts > 0))))


@tf.function(reduce_retracing=True, autograph=False)
def _original_block(
    queries: tf.Tensor,
    query_classes: tf.Tensor,
    gallery: tf.Tensor,
    classes: tf.Tensor,
    counts: tf.Tensor,
    largest_r: tf.Tensor,
    dropped: tf.Tensor,
) -> tf.Tensor:
    squared = (
        tf.reduce_sum(tf.square(queries), axis=1)[:, tf.newaxis]
        + tf.reduce_sum(tf.square(gallery), axis=1)
        - 2.0 * tf.matmul(queries, gallery, transpose_b=True)
    )
    distances = tf.sqrt(tf.nn.relu(squared))
    nearest = tf.math.top_k(-distances, largest_r + dropped)[1][:, dropped:]
    relevant = tf.cast(tf.gather(classes, nearest) == query_classes[:, tf.newaxis], tf.float32)
    places = tf.range(1, largest_r + 1)
    inside = tf.cast(places <= counts[:, tf.newaxis], tf.float32)
    precision = tf.cumsum(relevant, axis=1) / tf.cast(places, tf.float32)
    positives = tf.maximum(tf.cast(counts, tf.float32), 1.0)
    r_precision = tf.reduce_sum(relevant * inside, axis=1) / positives
    map_at_r = tf.reduce_sum(relevant * inside * precision, axis=1) / positives
    return tf.reduce_sum(tf.stack([relevant[:, 0] * inside[:, 0], r_precision, map_at_r]), axis=1)
