"""Tasks measured in turns, and processes."""

from __future__ import annotations

import os

import pytest

from benchmarks.common import measuring
from benchmarks.common.processes import in_process


def test_tasks_take_turns():
    calls: list[str] = []
    tasks = {"a": lambda: calls.append("a"), "b": lambda: calls.append("b")}
    seconds = measuring.in_turns(tasks, 2)
    assert calls == ["a", "b"] * 3
    assert {name: len(found) for name, found in seconds.items()} == {"a": 2, "b": 2}


def test_times_are_medians_and_ratios_are_within_a_turn():
    calls, baseline = [(1.0, 2.0), (4.0, 3.0), (2.0, 8.0)], [(1.0, 1.0), (1.0, 1.0), (4.0, 2.0)]
    assert measuring.summarize(calls) == (2.0, 1.0, 4.0, 3.0)
    assert measuring.summarize(calls).per(2.0) == (1.0, 0.5, 2.0, 1.5)
    assert measuring.ratio(calls, baseline) == (1.0, 3.0)


def test_a_function_runs_in_a_process_of_its_own():
    assert in_process(os.getpid) != os.getpid()


def test_a_process_that_ends_is_an_error():
    with pytest.raises(RuntimeError, match="exit code 3"):
        in_process(os._exit, 3)
