"""Sizes of blocks for every size of search and every bound."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ccp_dml.evaluation.blocks import LANES, plan_search, query_bytes


@settings(max_examples=50, deadline=None, derandomize=True)
@given(
    queries=st.integers(1, 10**5),
    gallery=st.integers(1, 10**7),
    dimension=st.integers(1, 2048),
    depth=st.integers(1, 2000),
    memory=st.integers(2**20, 2**32),
    score_bytes=st.sampled_from([4, 2]),
)
def test_a_plan_is_consistent_and_within_the_bound(queries, gallery, dimension, depth, memory, score_bytes):
    try:
        plan = plan_search(queries, gallery, dimension, depth, memory, score_bytes=score_bytes)
    except ValueError:
        assert query_bytes(1, dimension, 0, min(gallery, depth + 9), score_bytes) > memory / 2
        return
    assert 1 <= plan.queries <= queries
    assert plan.candidates == min(gallery, depth + 9) <= plan.gallery
    per_query = query_bytes(plan.gallery, dimension, plan.chunk, plan.candidates, score_bytes)
    assert plan.queries * per_query <= memory
    if plan.chunk:
        assert plan.gallery % (plan.chunk * LANES) == 0
        assert plan.candidates <= plan.gallery // plan.chunk


def test_a_million_rows_are_searched_in_large_blocks_with_the_default_bound():
    plan = plan_search(10_000, 10**6, 128, 10)
    assert plan.queries >= 32
    assert plan.gallery >= 250_000


def test_large_classes_do_not_cut_the_gallery_into_slivers():
    assert plan_search(10_000, 60_000, 512, 6_000).gallery == 60_000


def test_blocks_are_even():
    plan = plan_search(1_025, 100, 8, 3)
    assert plan.queries == 352  # three blocks, not 512 + 512 + 1, of whole units
    assert [plan_search(total, 100, 8, 3).queries for total in (33, 500, 512)] == [33, 500, 512]


def test_too_small_a_bound_is_an_error():
    with pytest.raises(ValueError, match="memory_bytes is 5000"):
        plan_search(10, 10_000, 512, 100, 5_000)
