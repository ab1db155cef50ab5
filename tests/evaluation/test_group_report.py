"""Statistics over folds and repeats, and the report that shows them beside the values of the paper."""

from __future__ import annotations

import csv
import io
import json
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ccp_dml.evaluation.group_report import Aggregate, GroupReport, MemberScores, half_width, mean
from ccp_dml.evaluation.paper import PaperResults, published


def means(map_at_r: float, recall: float = 0.5) -> dict:
    return {
        "precision_at_1": 0.5,
        "r_precision": 0.25,
        "map_at_r": map_at_r,
        "recall_at_k": {"1": 0.5, "2": recall},
        "map_at_k": {},
        "num_queries": 100,
        "num_queries_without_positives": 0,
    }


# Student's 97.5 % quantiles for n - 1 degrees of freedom, from a printed table.
@pytest.mark.parametrize("n, quantile", [(2, 12.706), (3, 4.303), (4, 3.182), (5, 2.776), (11, 2.228)])
def test_the_interval_is_that_of_student(n, quantile):
    values = np.random.default_rng(n).normal(0.3, 0.1, n)
    average = sum(values) / n
    deviation = math.sqrt(sum((value - average) ** 2 for value in values) / (n - 1))
    assert half_width(values) == pytest.approx(quantile * deviation / math.sqrt(n), rel=2e-4)


@settings(max_examples=50, deadline=None, derandomize=True)
@given(st.lists(st.floats(0, 1), min_size=2, max_size=6), st.permutations(range(6)))
def test_statistics_do_not_depend_on_the_order_of_the_repeats(values, order):
    shuffled = [values[place] for place in order if place < len(values)]
    found = [Aggregate(8, tuple(means(value) for value in rows)).statistics for rows in (values, shuffled)]
    for key in found[0]:
        assert found[0][key]["map_at_r"] == pytest.approx(found[1][key]["map_at_r"], abs=1e-12)
    assert found[0]["worst"]["map_at_r"] == min(values)
    assert found[0]["best"]["map_at_r"] == max(values)


def test_metrics_by_k_are_averaged_and_counts_left_out():
    found = mean([means(0.1, 0.5), means(0.3, 1.0)])
    assert found == {
        "precision_at_1": 0.5,
        "r_precision": 0.25,
        "map_at_r": pytest.approx(0.2),
        "recall_at_k": {"1": 0.5, "2": 0.75},
        "map_at_k": {},
    }


def test_one_repeat_has_no_interval():
    aggregate = Aggregate(128, (mean([means(0.2)]),))
    assert set(aggregate.statistics) == {"mean", "best", "worst"}
    assert "confidence_95" not in aggregate.to_dict()


@pytest.fixture
def report() -> GroupReport:
    repeats = [[means(0.2), means(0.24)], [means(0.22), means(0.22)], [means(0.25), means(0.27)]]
    members = [
        MemberScores(fold, repeat, repeat, scores)
        for repeat, folds in enumerate(repeats, start=1)
        for fold, scores in enumerate(folds, start=1)
    ]
    row = published("cub", "ccp/contrastive", 128)
    assert row is not None
    method, values = row
    return GroupReport(
        members,
        {"separate": Aggregate(128, tuple(mean(folds) for folds in repeats))},
        PaperResults(method, {"separate": values}, ("a note", "another")),
    )


def test_the_table_of_a_group(report):
    # Repeats 22, 22 and 26 %: mean 23.33, s = 2.309, 4.3027 s / sqrt(3) = 5.74; the paper has 22.67.
    assert report.table().splitlines() == [
        "                               P@1    P@R  MAP@R    R@2",
        "-------------------------------------------------------",
        "fold 1, repeat 1             50.00  25.00  20.00  50.00",
        "fold 2, repeat 1             50.00  25.00  24.00  50.00",
        "fold 1, repeat 2             50.00  25.00  22.00  50.00",
        "fold 2, repeat 2             50.00  25.00  22.00  50.00",
        "fold 1, repeat 3             50.00  25.00  25.00  50.00",
        "fold 2, repeat 3             50.00  25.00  27.00  50.00",
        "separate 128-d, mean         50.00  25.00  23.33  50.00",
        "separate 128-d, ± 95 %        0.00   0.00   5.74   0.00",
        "separate 128-d, best         50.00  25.00  26.00  50.00",
        "separate 128-d, worst        50.00  25.00  22.00  50.00",
        "separate 128-d, paper        62.39  33.49  22.67      -",
        "separate 128-d, difference  -12.39  -8.49   0.66      -",
        "paper: C2-CCP-L in arXiv 2209.09060; a note; another",
    ]


def test_the_dictionary_and_the_csv_of_a_group(report):
    found = report.to_dict()
    assert json.loads(json.dumps(found)) == found
    assert found["separate"]["paper"] == {
        "source": "arXiv 2209.09060",
        "method": "C2-CCP-L",
        "note": "a note; another",
        "precision_at_1": 0.6239,
        "r_precision": 0.3349,
        "map_at_r": 0.2267,
    }
    assert found["separate"]["difference"]["map_at_r"] == pytest.approx(0.7 / 3 - 0.2267)
    rows = list(csv.DictReader(io.StringIO(report.csv())))
    kinds = [(row["kind"], row["statistic"]) for row in rows]
    statistics = ("mean", "best", "worst", "confidence_95", "paper", "difference")
    assert kinds == [
        *[("run", "value")] * 6,
        *[("separate", "value")] * 3,
        *[("separate", statistic) for statistic in statistics],
    ]
    assert [row["repeat"] for row in rows[6:9]] == ["1", "2", "3"]
    assert rows[-2]["recall_at_2"] == ""
    assert float(rows[9]["map_at_r"]) == found["separate"]["mean"]["map_at_r"]
