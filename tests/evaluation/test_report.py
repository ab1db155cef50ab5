"""Tables of results."""

from __future__ import annotations

import pytest

from ccp_dml.evaluation.report import flatten, format_table

MEANS = {
    "precision_at_1": 0.4812,
    "r_precision": 0.3,
    "map_at_r": 0.0249,
    "recall_at_r": 0.6,
    "recall_at_k": {"1": 0.4812, "10": 1.0, "2": 0.5},
    "precision_at_k": {},
    "map_at_k": {},
    "num_queries": 100,
    "num_queries_without_positives": 0,
}


def test_a_table_is_aligned_ordered_and_in_percent():
    text = format_table({"frozen features": MEANS, "CCP": MEANS | {"map_at_k": {"5": 0.1}}})
    assert text.splitlines() == [
        "                  P@1   P@R  MAP@R   R@2   R@10  MAP@5",
        "------------------------------------------------------",
        "frozen features  48.1  30.0    2.5  50.0  100.0      -",
        "CCP              48.1  30.0    2.5  50.0  100.0   10.0",
    ]


def test_a_line_below_the_table_counts_queries_that_were_left_out():
    text = format_table({"a": MEANS | {"num_queries_without_positives": 3}})
    assert text.splitlines()[-1].startswith("a: 3 of 100 queries")


def test_an_empty_table_is_an_error():
    with pytest.raises(ValueError, match="at least one row"):
        format_table({})


def test_metrics_by_k_get_flat_names():
    assert flatten({"map_at_r": 0.5, "recall_at_k": {"1": 0.25, "10": 1.0}, "map_at_k": {}}) == {
        "map_at_r": 0.5,
        "recall_at_1": 0.25,
        "recall_at_10": 1.0,
    }
