"""Statistics over repeats, the paper's table, and the report that shows both."""

from __future__ import annotations

import csv
import io
import json
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ccp_dml.evaluation.report import (
    Aggregate,
    GroupReport,
    MemberScores,
    combine,
    half_width,
    mean,
    published,
)


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
def test_the_interval_is_students(n, quantile):
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


def test_metrics_by_k_are_combined_and_counts_left_out():
    found = mean([means(0.1, 0.5), means(0.3, 1.0)])
    assert found == {
        "precision_at_1": 0.5,
        "r_precision": 0.25,
        "map_at_r": pytest.approx(0.2),
        "recall_at_k": {"1": 0.5, "2": 0.75},
        "map_at_k": {},
    }
    with pytest.raises(ValueError, match="no results"):
        combine([], np.mean)


def test_one_repeat_has_no_interval():
    aggregate = Aggregate(128, (mean([means(0.2)]),))
    assert aggregate.confidence is None
    assert "confidence_95" not in aggregate.to_dict()


@pytest.mark.parametrize(
    "dataset, loss, dimensions, expected",
    [
        ("cub", "ccp/contrastive", 128, ("C2-CCP-L", 0.6239, 0.3349, 0.2267)),
        ("cub", "ccp/contrastive", 512, ("C2-CCP-L", 0.6973, 0.3869, 0.2802)),
        ("inshop", "original_contrastive", 512, ("C1", 0.8012, 0.5311, 0.5015)),
        ("sop", "xbm/original_contrastive", 128, ("C1-XBM-L", 0.7537, 0.4995, 0.4739)),
        ("sop", "soft_triple", 512, ("SoftTriple-S", 0.7848, 0.5368, 0.5077)),
        ("cars196", "soft_triple", 512, ("SoftTriple-L", 0.8490, 0.3769, 0.2780)),
        ("cars196", "proxy_nca", 128, ("ProxyNCA++", 0.7245, 0.2991, 0.1932)),
        ("emoji", "ccp/contrastive", 128, None),
        ("cub", "ccp/contrastive", 64, None),
        ("cub", "mdr/contrastive", 128, None),
        ("cub", "ccp/xbm/contrastive", 128, None),
        ("cub", "ccp/proxy_anchor", 128, None),
    ],
)
def test_rows_of_the_paper(dataset, loss, dimensions, expected):
    found = published(dataset, loss, dimensions)
    if expected is None:
        assert found is None
    else:
        assert found is not None
        method, values = found
        assert (method, values["precision_at_1"], values["r_precision"], values["map_at_r"]) == expected


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
    return GroupReport(
        members,
        {"separate": Aggregate(128, tuple(mean(folds) for folds in repeats))},
        {"separate": row[1]},
        row[0],
        "a note",
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
        "paper: C2-CCP-L in arXiv 2209.09060; a note",
    ]


def test_the_dictionary_and_the_csv_of_a_group(report):
    found = report.to_dict()
    assert json.loads(json.dumps(found)) == found
    assert found["separate"]["paper"]["method"] == "C2-CCP-L"
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
