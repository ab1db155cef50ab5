from __future__ import annotations

import json
import subprocess
import sys

import numpy as np
import pytest

from ccp_dml.evaluation.report import format_table, results_dict

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


def test_table_is_aligned_ordered_and_in_percent():
    text = format_table({"frozen features": MEANS, "CCP": MEANS | {"map_at_k": {"5": 0.1}}})
    assert text.splitlines() == [
        "                  P@1   P@R  MAP@R   R@2   R@10  MAP@5",
        "------------------------------------------------------",
        "frozen features  48.1  30.0    2.5  50.0  100.0      -",
        "CCP              48.1  30.0    2.5  50.0  100.0   10.0",
    ]


def test_table_says_when_queries_were_left_out():
    text = format_table({"a": MEANS | {"num_queries_without_positives": 3}})
    assert text.splitlines()[-1].startswith("a: 3 of 100 queries")


def test_an_empty_table_is_an_error():
    with pytest.raises(ValueError, match="at least one row"):
        format_table({})


def test_results_are_json_with_the_fixed_sections():
    results = results_dict(MEANS, config={"seed": 1}, versions={"numpy": np.__version__}, baseline=MEANS)
    assert json.loads(json.dumps(results)) == results
    assert list(results) == ["test", "validation", "config", "versions", "baseline"]
    assert results["test"]["map_at_r"] == 0.0249
    assert results["validation"] is None


def test_the_package_and_the_report_do_not_import_tensorflow():
    code = "import sys, ccp_dml.evaluation as e; e.format_table; " "sys.exit('tensorflow' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_every_public_name_exists():
    import ccp_dml.evaluation as evaluation

    assert all(callable(getattr(evaluation, name)) for name in evaluation.__all__)
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        _ = evaluation.nothing
