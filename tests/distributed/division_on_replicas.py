"""Work that several replicas of a process divide; run by `test_on_replicas.py` in a process of its own."""

from __future__ import annotations

import functools

import pytest

from tests.distributed import devices
from tests.distributed.division import Work, assert_read_once, assert_same_work, divided_work


@functools.cache
def alone() -> Work:
    return divided_work(None)


@pytest.mark.parametrize("replicas", [2, pytest.param(4, marks=pytest.mark.slow)])
def test_replicas_divide_evaluation_and_choose_the_same_proxies(replicas: int) -> None:
    found = divided_work(devices.strategy(replicas))
    assert_same_work(found, alone())
    assert_read_once(found.read)
