"""Problems and rows of the retrieval benchmark."""

from __future__ import annotations

import types

import numpy as np
import pytest

from benchmarks.retrieval import cases, evaluations, run
from tests.evaluation import oracle


@pytest.fixture(params=[0, 37], ids=["self_retrieval", "query_and_gallery"])
def problem(request) -> cases.Problem:
    case = cases.Case("", 150, queries=request.param, dimension=6, class_sizes=(2, 7))
    return cases.as_problem(case, *cases.make(case))


def expected(problem: cases.Problem) -> dict[str, float]:
    gallery = None if problem.is_self_retrieval else problem.gallery
    rankings = oracle.rankings(problem.queries, gallery)
    rows = [
        oracle.metrics(ranking, label, problem.gallery_labels, (), (), ())
        for ranking, label in zip(rankings, problem.query_labels, strict=True)
    ]
    names = {"P@1": "precision_at_1", "P@R": "r_precision", "MAP@R": "map_at_r"}
    return {name: float(np.nanmean([row[key] for row in rows])) for name, key in names.items()}


@pytest.mark.parametrize("row", [evaluations.ours, evaluations.ours_far, evaluations.original])
def test_rows_have_the_values_of_brute_force(problem, row):
    found = row(problem)
    assert {name: found[name] for name in run.COMPARED} == pytest.approx(expected(problem), abs=1e-6)


def test_a_class_has_as_many_images_as_the_case_says():
    case = cases.Case("", 400, class_sizes=(3, 5))
    problem = cases.as_problem(case, *cases.make(case))
    # The last class may be cut.
    assert sorted(set(np.bincount(problem.gallery_labels)[:-1])) == [3, 4, 5]
    assert np.linalg.norm(problem.gallery, axis=1) == pytest.approx(1.0)


def test_rows_that_differ_by_more_than_rounding_are_an_error():
    def row(value: float) -> types.SimpleNamespace:
        return types.SimpleNamespace(values=dict.fromkeys(run.COMPARED, value))

    case = cases.Case("made up", 1_000)
    product = types.SimpleNamespace(values={})
    assert run.compare(case, {"product": product, "ours": row(0.5), "other": row(0.501)}) == (
        pytest.approx(0.001)
    )
    with pytest.raises(SystemExit, match="made up: P@1 is .*'other': 0.51.*; expected them within 0.003"):
        run.compare(case, {"product": product, "ours": row(0.5), "other": row(0.51)})


def test_large_cases_have_known_rows():
    assert set(run.ROWS_OF_LARGE_CASES) < set(run.ROWS)
