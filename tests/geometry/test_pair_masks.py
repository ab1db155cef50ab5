"""Masks of positive and negative pairs against loops."""

from __future__ import annotations

import numpy as np
import tensorflow as tf

from ccp_dml.geometry import pair_masks


def test_every_pair_of_a_batch_but_the_diagonal_is_positive_or_negative() -> None:
    labels = tf.constant([3, 1, 3, 2, 1, 3])
    positives, negatives = (mask.numpy() for mask in pair_masks(labels))
    for i in range(6):
        for j in range(6):
            same = int(labels[i]) == int(labels[j])
            assert positives[i, j] == (same and i != j)
            assert negatives[i, j] == (not same)


def test_references_are_paired_with_all_samples() -> None:
    positives, negatives = pair_masks(tf.constant([0, 1]), tf.constant([0, 1, 0]))
    np.testing.assert_array_equal(positives, [[True, False, True], [False, True, False]])
    np.testing.assert_array_equal(negatives, np.logical_not(positives))
