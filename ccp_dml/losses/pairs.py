"""Pairs of anchors and samples, and the building blocks of formulas over them.

With A anchors and S samples, every matrix is [A, S]: a row for each anchor, a column for each sample. When
the classes of the proxies are sharded over replicas, each replica holds some of the columns (or of the rows,
if proxies are the anchors). A formula is exact then if it combines its results over columns by
`Pairs.columns`, as the functions below do; results over rows are combined by `PairLoss.formula`.
"""

from __future__ import annotations

import dataclasses

import tensorflow as tf

from ccp_dml.distributed.shards import SINGLE_SHARD, Shards
from ccp_dml.geometry import pair_masks, pairwise_distances

# Normalised embeddings [N, D], their classes int [N], their image ids int [N] or None.
LabeledRows = tuple[tf.Tensor, tf.Tensor, tf.Tensor | None]


@dataclasses.dataclass(frozen=True)
class Pairs:
    """The pairs of A anchors (rows) and S samples (columns).

    A pair may be neither positive nor negative: a sample and itself, or a negative that a miner dropped.

    Attributes:
        distances: float32 [A, S].
        positives: bool [A, S], pairs of the same class.
        negatives: bool [A, S], pairs of different classes.
        anchor_labels: int32 or int64 [A]; below 0 for rows without a class, which fill up a shard.
        sample_labels: int32 or int64 [S]; below 0 for columns without a class.
        distance: kind of `distances`, one of `geometry.DISTANCES`.
        embedding_size: dimension of the embeddings; 0 if it is not known.
        shards: the shards of the proxies, if these are the pairs with the proxies of one shard.
        anchors_in_shards: True if the anchors are the sharded proxies, False if the samples are.
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
        """Combines results over the rows of this shard with those of the other shards."""
        return self.shards if self.anchors_in_shards else SINGLE_SHARD

    @property
    def columns(self) -> Shards:
        """Combines results over the columns of this shard with those of the other shards."""
        return SINGLE_SHARD if self.anchors_in_shards else self.shards

    @property
    def similarities(self) -> tf.Tensor:
        """Cosine similarities if the distance is the cosine distance, else negative distances: [A, S]."""
        return -self.distances

    @property
    def anchor_count(self) -> tf.Tensor:
        """A as a float32 scalar, without rows that have no class; of this shard, if they are sharded."""
        return _count_labels(self.anchor_labels, self.rows)

    @property
    def sample_count(self) -> tf.Tensor:
        """S as a float32 scalar, without columns that have no class; of this shard, if they are sharded."""
        return _count_labels(self.sample_labels, self.columns)


def _count_labels(labels: tf.Tensor, shards: Shards) -> tf.Tensor:
    if shards.is_single:
        return tf.cast(tf.size(labels), tf.float32)
    return tf.math.count_nonzero(labels >= 0, dtype=tf.float32)


def pairs_within(embeddings: tf.Tensor, labels: tf.Tensor, distance: str) -> Pairs:
    """Pairs each sample of a batch with all others.

    Args:
        embeddings: float32 [B, D], normalised.
        labels: int [B].
        distance: one of `geometry.DISTANCES`.
    """
    distances = pairwise_distances(embeddings, kind=distance)
    return Pairs(distances, *pair_masks(labels), labels, labels, distance, embeddings.shape[-1] or 0)


def pairs_between(
    anchors: LabeledRows,
    samples: LabeledRows,
    distance: str,
    shards: Shards = SINGLE_SHARD,
    anchors_in_shards: bool = False,
) -> Pairs:
    """Pairs anchors with samples; rows of the same image, where both have ids, are not a positive pair.

    Args:
        anchors: the rows.
        samples: the columns.
        distance: one of `geometry.DISTANCES`.
        shards: the shards of the proxies.
        anchors_in_shards: True if the anchors are the sharded proxies, False if the samples are.
    """
    (rows, row_labels, row_ids), (columns, column_labels, column_ids) = anchors, samples
    positives, negatives = pair_masks(row_labels, column_labels)
    if row_ids is not None and column_ids is not None:
        positives &= tf.not_equal(row_ids[:, tf.newaxis], column_ids[tf.newaxis, :])
    if not shards.is_single:
        sharded = row_labels[:, tf.newaxis] if anchors_in_shards else column_labels
        negatives &= sharded >= 0
    return Pairs(
        pairwise_distances(rows, columns, distance),
        positives,
        negatives,
        row_labels,
        column_labels,
        distance,
        rows.shape[-1] or 0,
        shards,
        anchors_in_shards,
    )


def hinge(terms: tf.Tensor, mask: tf.Tensor) -> tf.Tensor:
    """Returns `max(0, terms)` where `mask` holds, 0 elsewhere: float32 [A, S]."""
    return tf.where(mask, tf.nn.relu(terms), 0.0)


def sums_of_hinges(positive_terms: tf.Tensor, negative_terms: tf.Tensor, pairs: Pairs) -> list[tf.Tensor]:
    """Sums hinge terms; the result adds up over blocks of anchors, and `average_of_hinges` reads it.

    Args:
        positive_terms: float32 [A, S], non-negative, 0 where there is no positive pair.
        negative_terms: float32 [A, S], non-negative, 0 where there is no negative pair.
        pairs: the pairs of the terms.

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
            pairs.anchor_count * pairs.sample_count,
        ]
    )


def average_of_hinges(sums: list[tf.Tensor], average: str) -> tf.Tensor:
    """Averages hinge terms.

    Args:
        sums: the result of `sums_of_hinges`.
        average: `'active'`: mean of the non-zero positive terms plus mean of the non-zero negative ones;
            `'all'`: sum of all terms, divided by A * S.

    Returns:
        float32 scalar.
    """
    positive_sum, positive_count, negative_sum, negative_count, size = sums
    if average == "active":
        positive_mean = tf.math.divide_no_nan(positive_sum, positive_count)
        return positive_mean + tf.math.divide_no_nan(negative_sum, negative_count)
    return tf.math.divide_no_nan(positive_sum + negative_sum, size)


def masked_logsumexp(
    values: tf.Tensor, mask: tf.Tensor, with_zero: bool = False, columns: Shards = SINGLE_SHARD
) -> tf.Tensor:
    """Computes `log(sum(exp(values)))` of each row over `mask`, without overflow, for empty rows too.

    Args:
        values: float32 [A, S].
        mask: bool [A, S] or [S].
        with_zero: adds the term exp(0) = 1 to each row.
        columns: `Pairs.columns`, to sum over the columns of all shards.

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


def sums_of_cross_entropies(logits: tf.Tensor, pairs: Pairs) -> list[tf.Tensor]:
    """Sums over the anchors `-log` of the softmax probability of their positives.

    Args:
        logits: float32 [A, S].
        pairs: the softmax is over the positive and negative pairs of an anchor; an anchor without a positive
            counts as 0.

    Returns:
        Two float32 scalars: the sum, and the number of anchors.
    """
    columns = pairs.columns
    of_all = masked_logsumexp(logits, pairs.positives | pairs.negatives, columns=columns)
    of_positives = masked_logsumexp(logits, pairs.positives, columns=columns)
    has_positives = columns.any(tf.reduce_any(pairs.positives, axis=1))
    return [tf.reduce_sum(tf.where(has_positives, of_all - of_positives, 0.0)), pairs.anchor_count]
