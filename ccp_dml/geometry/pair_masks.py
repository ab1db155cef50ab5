"""Which pairs are positive (same class) and which are negative."""

from __future__ import annotations

import tensorflow as tf


def pair_masks(reference_labels: tf.Tensor, labels: tf.Tensor | None = None) -> tuple[tf.Tensor, tf.Tensor]:
    """Masks of the positive and of the negative pairs.

    Args:
        reference_labels: int [R], class of each row.
        labels: int [B], class of each column; None compares the references with each other, where no
            reference is paired with itself.

    Returns:
        Positives and negatives, bool [R, B] each.
    """
    others = reference_labels if labels is None else labels
    same = tf.equal(reference_labels[:, tf.newaxis], others[tf.newaxis, :])
    positives = same
    if labels is None:
        positives = tf.linalg.set_diag(same, tf.zeros_like(same[:, 0]))
    return positives, tf.logical_not(same)


def labels_of_batch_order(batch_size: int, num_classes: int) -> tf.Tensor:
    """Labels of a sample-major batch: the first sample of each class, then the second of each, and so on.

    Args:
        batch_size: number of samples B, a multiple of `num_classes`.
        num_classes: number of distinct classes in the batch.

    Returns:
        int32 [B], values 0..num_classes-1 that stand for the classes in order of appearance.

    Raises:
        ValueError: if the batch is not made of whole rounds over the classes.
    """
    if num_classes < 1 or batch_size % num_classes:
        raise ValueError(
            f"a batch of {batch_size} samples cannot be made of whole rounds over {num_classes} classes"
        )
    return tf.range(batch_size, dtype=tf.int32) % num_classes
