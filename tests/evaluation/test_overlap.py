"""Calls that run ahead: their order, how many there are, and what they raise."""

from __future__ import annotations

import threading

import pytest

from ccp_dml.evaluation.bfloat16 import run_ahead


@pytest.mark.parametrize("count", [0, 1, 2, 7])
@pytest.mark.parametrize("threads", [1, 2, 3])
def test_items_and_results_come_in_order(count, threads):
    found = list(run_ahead(lambda item: item**2, range(count), threads))
    assert found == [(item, item**2) for item in range(count)]


def test_no_more_than_the_next_are_begun():
    begun = []
    results = run_ahead(begun.append, range(10), 2)
    next(results)
    next(results)
    results.close()
    assert sorted(begun) == [0, 1, 2, 3]


def test_the_next_is_made_while_one_is_used():
    reached = threading.Event()

    def call(item: int) -> int:
        if item == 1:
            reached.set()
        return item

    results = run_ahead(call, range(3), 1)
    assert next(results) == (0, 0)
    assert reached.wait(timeout=60)
    assert list(results) == [(1, 1), (2, 2)]


def test_an_error_is_raised_in_its_place():
    results = run_ahead(lambda item: 1 // item, [2, 1, 0, 3], 2)
    assert [next(results), next(results)] == [(2, 0), (1, 1)]
    with pytest.raises(ZeroDivisionError):
        next(results)
