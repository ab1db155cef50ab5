"""Miners against loops, and their frequencies against the published density."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import tensorflow as tf
from hypothesis import given, settings
from hypothesis import strategies as st

from ccp_dml.geometry import pair_masks
from ccp_dml.losses.contrastive import Contrastive
from ccp_dml.losses.miners import distance_weighted, hard_negatives, make_miner
from ccp_dml.losses.pairs import Pairs


def _pairs(labels: np.ndarray, distances: np.ndarray) -> Pairs:
    labels = tf.constant(labels)
    return Pairs(tf.constant(distances, tf.float32), *pair_masks(labels), labels, labels)


@settings(max_examples=25, deadline=None, derandomize=True)
@given(st.lists(st.integers(0, 3), min_size=1, max_size=9), st.integers(0, 10**6))
def test_hard_negatives_are_the_nearest_of_each_anchor(classes: list[int], seed: int) -> None:
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


def test_an_anchor_with_few_negatives_keeps_exactly_these() -> None:
    labels = np.array([0, 0, 0, 1], np.int32)
    mined = hard_negatives(_pairs(labels, np.ones((4, 4))))
    np.testing.assert_array_equal(mined.negatives, labels[:, np.newaxis] != labels)


def test_ties_at_the_limit_are_all_kept() -> None:
    labels = np.array([0, 1, 2, 3], np.int32)
    mined = hard_negatives(_pairs(labels, np.array([[0.0, 1.0, 1.0, 2.0]] * 4)))
    np.testing.assert_array_equal(mined.negatives[0], [False, True, True, False])


def test_hard_negatives_of_negative_distances() -> None:
    labels = np.array([0, 1, 2], np.int32)
    mined = hard_negatives(_pairs(labels, np.array([[-1.0, -0.5, -0.9]] * 3)))
    np.testing.assert_array_equal(mined.negatives[0], [False, False, True])


def _distance_weighted(
    labels: np.ndarray, distances: np.ndarray, size: int, seed: int = 0, **kind: str
) -> Pairs:
    pairs = _pairs(labels, distances)
    return distance_weighted(dataclasses.replace(pairs, embedding_size=size, **kind), seed)


@settings(max_examples=25, deadline=None, derandomize=True)
@given(
    st.lists(st.integers(0, 3), min_size=1, max_size=9),
    st.sampled_from([1, 2, 3, 128, 2048]),
    st.integers(0, 10**6),
)
def test_draws_as_many_negatives_as_there_are_positives(classes: list[int], size: int, seed: int) -> None:
    labels = np.array(classes, np.int32)
    distances = np.random.default_rng(seed).uniform(0.0, 2.1, (len(labels), len(labels)))
    mined = _distance_weighted(labels, distances, size)
    same = labels[:, np.newaxis] == labels
    near = ~same & (distances.astype(np.float32) < 1.4)
    eligible = np.where(near.any(axis=1, keepdims=True), near, ~same)
    wanted = np.minimum(np.maximum(1, same.sum(axis=1) - 1), eligible.sum(axis=1))
    drawn = mined.negatives.numpy()
    np.testing.assert_array_equal(drawn.sum(axis=1), wanted)
    assert not (drawn & ~eligible).any()
    np.testing.assert_array_equal(mined.positives, same & ~np.eye(len(labels), dtype=bool))


@pytest.mark.parametrize("kind", ["euclidean", "squared_euclidean", "cosine"])
def test_frequencies_of_draws_are_the_inverse_density_of_distances(kind: str) -> None:
    anchors, size = 20000, 5
    euclidean = np.array([0.3, 0.5, 0.8, 1.1, 1.35, 1.6])
    row = {"euclidean": euclidean, "squared_euclidean": euclidean**2, "cosine": euclidean**2 / 2 - 1}[kind]
    negatives = tf.ones([anchors, len(row)], tf.bool)
    distances = tf.constant(np.tile(row, (anchors, 1)), tf.float32)
    labels = tf.zeros([anchors], tf.int32), tf.ones([len(row)], tf.int32)
    mined = distance_weighted(Pairs(distances, ~negatives, negatives, *labels, kind, size), seed=3)
    d = np.maximum(euclidean, 0.5)
    weights = (euclidean < 1.4) / (d ** (size - 2) * (1 - d**2 / 4) ** ((size - 3) / 2))
    share = np.mean(mined.negatives.numpy(), axis=0)
    np.testing.assert_allclose(share, weights / weights.sum(), atol=0.012)


def test_draw_is_a_function_of_seed_and_distances() -> None:
    labels = np.repeat(np.arange(8, dtype=np.int32), 4)
    distances = np.random.default_rng(0).uniform(0.5, 1.3, (32, 32))
    first = _distance_weighted(labels, distances, 16).negatives.numpy()
    np.testing.assert_array_equal(_distance_weighted(labels, distances, 16).negatives, first)
    assert (_distance_weighted(labels, distances, 16, seed=1).negatives.numpy() != first).any()
    distances[0, 31] += 1e-4
    assert (_distance_weighted(labels, distances, 16).negatives.numpy()[1:] != first[1:]).any()


def test_loss_is_computed_from_the_drawn_negatives() -> None:
    random = np.random.default_rng(2)
    labels, embeddings = np.repeat(np.arange(6), 3), random.normal(size=(18, 8)).astype(np.float32)
    loss = Contrastive(0.1, 1.3, miner="distance_weighted", seed=5)
    pairs = loss.batch_pairs(labels, embeddings)
    assert (pairs.distance, pairs.embedding_size) == ("euclidean", 8)
    assert int(tf.math.count_nonzero(pairs.negatives)) <= 36
    np.testing.assert_allclose(loss(labels, embeddings), loss.formula(pairs), rtol=1e-6)
    compiled = tf.function(lambda e: loss(labels, e), jit_compile=True)(embeddings)
    assert np.isfinite(compiled)


def test_unknown_miner_and_unknown_dimension_are_refused() -> None:
    with pytest.raises(ValueError, match="miner is 'soft'"):
        make_miner("soft")
    with pytest.raises(ValueError, match="dimension"):
        distance_weighted(_pairs(np.array([0, 1], np.int32), np.ones((2, 2))))
