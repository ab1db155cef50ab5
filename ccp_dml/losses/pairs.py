"""Pairs of anchors and samples, as a loss formula sees them."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from dataclasses import dataclass

import tensorflow as tf

from ccp_dml.distributed.shards import SINGLE_SHARD, Shards
from ccp_dml.geometry import pair_masks, pairwise_distances

AVERAGES: tuple[str, ...] = ("active", "all")
# Normalised embeddings [N, D], their classes int32 [N], their ids int [N] or None.
LabeledRows = tuple[tf.Tensor, tf.Tensor, tf.Tensor | None]


@dataclass(frozen=True)
class Pairs:
    """The pairs between A anchors (rows) and S samples (columns).

    A pair may be neither positive nor negative: a sample and itself, or a negative that a miner left out.

    Attributes:
        distances: float32 [A, S].
        positives: bool [A, S], pairs of the same class.
        negatives: bool [A, S], pairs of different classes.
        anchor_labels: int32 [A].
        sample_labels: int32 [S].
        distance: kind of `distances`, as in `geometry.distances`.
        embedding_size: dimension of the embeddings; 0 if it is not known.
        shards: the shards of the classes of the proxies, of which these pairs are those of one. Formulas
            rather use `rows` and `columns`.
        anchors_in_shards: whether it is the anchors that are sharded, not the samples.
    """

    distances: tf.Tensor
    positives: tf.Tensor
    negatives: tf.Tensor
    anchor_labels: tf.Tensor
    sample_labels: tf.Tensor
    distance: str = "euclidean"
    embedding_size: int = 0
    shards: Shards = SINGLE_SHARD
    anchors_in_shards: bool = False

    @property
    def rows(self) -> Shards:
        """What combines results of the rows that are here with those of all rows."""
        return self.shards if self.anchors_in_shards else SINGLE_SHARD

    @property
    def columns(self) -> Shards:
        """What combines results of the columns that are here with those of all columns."""
        return SINGLE_SHARD if self.anchors_in_shards else self.shards

    @property
    def similarities(self) -> tf.Tensor:
        """Cosine similarities, or negative distances: [A, S]."""
        return -self.distances


def pairs_between(anchors: LabeledRows, others: LabeledRows, kind: str, size: int) -> Pairs:
    """The pairs of two sets of rows; rows with the same id, where both have ids, are no positive pair.

    Args:
        anchors: normalised embeddings [A, D], classes, ids.
        others: the same, [S, D].
        kind: of distances, as in `geometry.distances`.
        size: dimension D; 0 if it is not known.
    """
    (rows, row_labels, row_ids), (columns, column_labels, column_ids) = anchors, others
    positives, negatives = pair_masks(row_labels, column_labels)
    if row_ids is not None and column_ids is not None:
        positives &= tf.not_equal(row_ids[:, tf.newaxis], column_ids[tf.newaxis, :])
    distances = pairwise_distances(rows, columns, kind)
    return Pairs(distances, positives, negatives, row_labels, column_labels, kind, size)


def of_shard(pairs: Pairs, shards: Shards, anchors_in_shards: bool) -> Pairs:
    """Pairs with the proxies of one shard; its rows of no class are in none."""
    known = pairs.anchor_labels[:, tf.newaxis] if anchors_in_shards else pairs.sample_labels
    return dataclasses.replace(
        pairs,
        negatives=pairs.negatives & (known >= 0),
        shards=shards,
        anchors_in_shards=anchors_in_shards,
    )


def positive_part(terms: tf.Tensor, mask: tf.Tensor) -> tf.Tensor:
    """Hinge terms where `mask` holds, 0 elsewhere."""
    return tf.where(mask, tf.nn.relu(terms), 0.0)


def sums_of_hinges(positive_terms: tf.Tensor, negative_terms: tf.Tensor, pairs: Pairs) -> list[tf.Tensor]:
    """What `average_of_hinges` needs of the hinge terms [A, S]; adds up over blocks of anchors.

    Args:
        positive_terms: non-negative, 0 where no pair.
        negative_terms: non-negative, 0 where no pair.
        pairs: whose terms these are.

    Returns:
        Five float32 scalars: sum and number of the non-zero positive terms, the same of the negative ones,
        and A * S.
    """
    return pairs.columns.sums(
        [
            tf.reduce_sum(positive_terms),
            tf.math.count_nonzero(positive_terms, dtype=tf.float32),
            tf.reduce_sum(negative_terms),
            tf.math.count_nonzero(negative_terms, dtype=tf.float32),
            number_of_anchors(pairs) * _count(pairs.sample_labels, pairs.columns),
        ]
    )


def average_of_hinges(sums: list[tf.Tensor], average: str) -> tf.Tensor:
    """One number from the hinge terms of the positive and of the negative pairs.

    Args:
        sums: of `sums_of_hinges`.
        average: `'active'`: mean of the non-zero positive terms plus mean of the non-zero negative ones;
            `'all'`: sum over everything, divided by A * S.

    Returns:
        float32 scalar.
    """
    positive_sum, positive_count, negative_sum, negative_count, size = sums
    if average == "active":
        of_positives = tf.math.divide_no_nan(positive_sum, positive_count)
        return of_positives + tf.math.divide_no_nan(negative_sum, negative_count)
    return tf.math.divide_no_nan(positive_sum + negative_sum, size)


def number_of_anchors(pairs: Pairs) -> tf.Tensor:
    """A as a float32 scalar; of sharded anchors those of this shard."""
    return _count(pairs.anchor_labels, pairs.rows)


def _count(labels: tf.Tensor, shards: Shards) -> tf.Tensor:
    if shards.is_single:
        return tf.cast(tf.size(labels), tf.float32)
    return tf.math.count_nonzero(labels >= 0, dtype=tf.float32)


def masked_logsumexp(
    values: tf.Tensor, mask: tf.Tensor, with_zero: bool = False, columns: Shards = SINGLE_SHARD
) -> tf.Tensor:
    """`log(sum exp)` of each row over `mask`, without overflow, also where a row is masked out entirely.

    Args:
        values: float32 [A, S].
        mask: bool [A, S].
        with_zero: add the term exp(0) = 1 to each row.
        columns: of the pairs; the sum is over the columns of all shards.

    Returns:
        float32 [A]; for a row without terms the lowest float32 (0 if `with_zero`), without gradient.
    """
    lowest = values.dtype.min
    largest = columns.max(tf.reduce_max(tf.where(mask, values, lowest), axis=1))
    shift = tf.maximum(largest, 0.0) if with_zero else tf.where(largest > lowest, largest, 0.0)
    terms = tf.where(mask, tf.exp(tf.where(mask, values - shift[:, tf.newaxis], 0.0)), 0.0)
    total = columns.sum(tf.reduce_sum(terms, axis=1))
    if with_zero:
        return tf.math.log1p(total + tf.math.expm1(-shift)) + shift
    empty = total == 0.0
    return tf.where(empty, lowest, tf.math.log(tf.where(empty, 1.0, total)) + shift)


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
