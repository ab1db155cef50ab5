"""Ranks of the nearest of some rows, from exact and from rounded scores."""

from __future__ import annotations

import numpy as np
import tensorflow as tf
from hypothesis import given, settings
from hypothesis import strategies as st

from ccp_dml.evaluation import kernels
from ccp_dml.evaluation.points import Points
from ccp_dml.evaluation.ranks import count_nearer, rank_bounds_by_coarse_score


@settings(max_examples=30, deadline=None, derandomize=True)
@given(
    seed=st.integers(0, 10**6), size=st.integers(2, 60), listed=st.integers(1, 4), levels=st.integers(1, 5)
)
def test_the_rank_of_the_nearest_row_is_that_in_a_stable_sort(seed, size, listed, levels):
    rng = np.random.default_rng(seed)
    gallery, queries = (rng.integers(0, levels, (count, 2)).astype(np.float32) for count in (size, 8))  # ties
    points = Points(queries, gallery)
    squared = ((queries[:, np.newaxis] - gallery) ** 2).sum(axis=2)
    rows = rng.permutation(8)[:5]
    self_rows = np.where(rng.random(5) < 0.3, -1, rng.integers(0, size, 5)).astype(np.int32)
    members = np.full((5, listed), -1, np.int32)
    for line, self_row in zip(members, self_rows):
        others = np.setdiff1d(np.arange(size), [self_row])
        chosen = rng.choice(others, rng.integers(1, min(listed, len(others)) + 1), replace=False)
        line[: len(chosen)] = np.sort(chosen)
    expected = []
    for row, line, self_row in zip(rows, members, self_rows):
        ranking = [i for i in sorted(range(size), key=lambda i: (squared[row, i], i)) if i != self_row]
        expected.append(min(ranking.index(member) for member in line if member >= 0))
    # The scores are as bad as their bounds permit.
    exact = (points.rounded_queries(slice(None)).astype(np.float64) ** 2).sum(axis=1, keepdims=True)
    errors = points.score_errors(np.sqrt(exact[:, 0]))[:, np.newaxis]
    scores = exact - squared * points.scale**2 + 0.9 * errors * rng.choice([-1.0, 1.0], (8, size))
    actual = np.zeros(5, np.int64)
    for first in range(0, size, 25):
        tile = scores[:, first : first + 25].astype(np.float32)
        padded = np.pad(tile, [(0, 0), (0, 3)], constant_values=kernels.PADDING_SCORE)
        actual += count_nearer(points, padded, first, rows, rows, members, self_rows)
    np.testing.assert_array_equal(actual, expected)


def test_bounds_of_exact_scores_are_the_ranks_for_all_signs():
    # Numbers that bfloat16 represents exactly, with both zeros, each several times.
    values = np.array([-3.0, -1.5, -0.0, 0.0, 2.0**-130, 1.5, 3.0], np.float32)
    scores = np.random.default_rng(0).choice(values, (30, 50))
    self_rows, members = np.full(30, -1, np.int32), np.arange(30, dtype=np.int32)[:, np.newaxis]
    nearest = scores[np.arange(30), np.arange(30)]
    least, most = rank_bounds_by_coarse_score(
        tf.constant(scores, tf.bfloat16),
        np.arange(30),
        members,
        self_rows,
        nearest,
        np.zeros(30, np.float32),
        0,
        range(1, 50),
    )
    # Rows that tie with the nearest may rank before or after it.
    np.testing.assert_array_equal(least, 1 + (scores > nearest[:, np.newaxis]).sum(axis=1))
    np.testing.assert_array_equal(most, (scores >= nearest[:, np.newaxis]).sum(axis=1))


def test_the_query_its_listed_rows_and_padding_are_not_counted():
    rng = np.random.default_rng(1)
    levels = np.arange(-4, 5, dtype=np.float32) / 4
    scores = np.concatenate([rng.choice(levels, (30, 40)), np.full((30, 8), kernels.PADDING_SCORE)], axis=1)
    rows = rng.permutation(30)
    self_rows = np.where(rng.random(30) < 0.5, rng.integers(0, 40, 30), -1).astype(np.int32)
    members = np.sort(rng.permuted(np.tile(np.arange(40), (30, 1)), axis=1)[:, :5], axis=1).astype(np.int32)
    # As in the list of a class without the query.
    members[:, 2] = -1
    members[members == self_rows[:, np.newaxis]] = -1
    expected_least, expected_most, nearest = [], [], []
    for row, listed, self_row in zip(scores[rows], members, self_rows):
        listed = listed[listed >= 0]
        others = [score for column, score in enumerate(row) if column != self_row]
        rest = [score for column, score in enumerate(row) if column not in {self_row, *listed}]
        nearest.append(max(row[listed]))
        expected_least.append(1 + sum(score > nearest[-1] for score in others))
        expected_most.append(1 + sum(score >= nearest[-1] for score in rest))
    error, every = np.zeros(30, np.float32), range(1, 48)
    least, most = rank_bounds_by_coarse_score(
        tf.constant(scores, tf.bfloat16),
        rows,
        members,
        self_rows,
        np.array(nearest, np.float32),
        error,
        0,
        every,
    )
    np.testing.assert_array_equal(least, expected_least)
    np.testing.assert_array_equal(most, expected_most)
