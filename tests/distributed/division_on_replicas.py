"""Work that the replicas of a process divide; `test_on_replicas.py` runs these tests in another process."""

from __future__ import annotations

import functools

import pytest

from tests.distributed import devices
from tests.distributed.division import Work, assert_read_once, assert_same_work, divided_work


@functools.cache
def on_one_device() -> Work:
    return divided_work(None)


@pytest.mark.parametrize("replicas", [2, pytest.param(4, marks=pytest.mark.slow)])
def test_replicas_divide_evaluation_and_choose_the_same_proxies(replicas: int) -> None:
    found = divided_work(devices.strategy(replicas))
    assert_same_work(found, on_one_device())
    assert_read_once(found.read)
