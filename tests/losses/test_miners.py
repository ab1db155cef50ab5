from __future__ import annotations

import numpy as np
import tensorflow as tf
from hypothesis import given, settings
from hypothesis import strategies as st

from ccp_dml.geometry.pair_masks import pair_masks
from ccp_dml.losses.miners import hard_negatives
from ccp_dml.losses.pairs import Pairs


def _pairs(labels: np.ndarray, distances: np.ndarray) -> Pairs:
    labels = tf.constant(labels)
    return Pairs(tf.constant(distances, tf.float32), *pair_masks(labels), labels, labels)


@settings(max_examples=25, deadline=None, derandomize=True)
@given(st.lists(st.integers(0, 3), min_size=1, max_size=9), st.integers(0, 10**6))
def test_keeps_the_nearest_negatives_of_each_anchor(classes: list[int], seed: int) -> None:
    labels = np.array(classes, np.int32)
    distances = np.random.default_rng(seed).permutation(len(labels) ** 2).reshape(len(labels), -1)
    mined = hard_negatives(_pairs(labels, distances))
    same = labels[:, np.newaxis] == labels
    wanted = max(1, same.sum(axis=1).max() - 1)
    for i in range(len(labels)):
        negatives = [j for j in range(len(labels)) if labels[j] != labels[i]]
        expected = sorted(negatives, key=lambda j, row=distances[i]: row[j])[:wanted]
        assert set(np.flatnonzero(mined.negatives[i])) == set(expected)
    np.testing.assert_array_equal(mined.positives, same & ~np.eye(len(labels), dtype=bool))


def test_anchor_with_fewer_negatives_than_wanted_keeps_all_of_them_and_nothing_else() -> None:
    labels = np.array([0, 0, 0, 1], np.int32)
    mined = hard_negatives(_pairs(labels, np.ones((4, 4))))
    np.testing.assert_array_equal(mined.negatives, labels[:, np.newaxis] != labels)


def test_ties_at_the_limit_are_all_kept() -> None:
    labels = np.array([0, 1, 2, 3], np.int32)
    mined = hard_negatives(_pairs(labels, np.array([[0.0, 1.0, 1.0, 2.0]] * 4)))
    np.testing.assert_array_equal(mined.negatives[0], [False, True, True, False])


def test_acts_on_distances_of_any_sign() -> None:
    labels = np.array([0, 1, 2], np.int32)
    mined = hard_negatives(_pairs(labels, np.array([[-1.0, -0.5, -0.9]] * 3)))
    np.testing.assert_array_equal(mined.negatives[0], [False, False, True])
