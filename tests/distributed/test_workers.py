"""Division of work and exchange of values between workers, and training by two workers."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf
from hypothesis import given
from hypothesis import strategies as st

from ccp_dml.distributed.workers import SINGLE_WORKER, Workers
from tests.distributed.division import Work, assert_read_once, assert_same_work, divided_work
from tests.distributed.processes import files_of_two
from tests.distributed.runs import NUDGE, assert_same_figures, run
from tests.distributed.worker import CASE, STEPS


@given(total=st.integers(0, 200), count=st.integers(1, 9), local=st.integers(1, 8))
def test_local_slices_are_contiguous_and_cover_all_items(total: int, count: int, local: int) -> None:
    workers = Workers()
    workers.count, workers.replicas_per_worker = count, local
    end = 0
    for workers.index in range(count):
        chosen = workers.local_slice(total)
        assert chosen.start == end
        assert chosen.stop - chosen.start <= local * -(-total // (local * count))
        end = chosen.stop
    assert end == total


def test_a_single_worker_exchanges_nothing() -> None:
    value = object()
    assert SINGLE_WORKER.is_chief
    assert SINGLE_WORKER.from_chief(value) is value
    assert SINGLE_WORKER.from_all(value) == [value]
    assert SINGLE_WORKER.local_slice(7) == slice(0, 7)


def test_two_workers_divide_evaluation_and_choose_the_same_proxies(tmp_path: Path) -> None:
    results = [dict(np.load(file)) for file in files_of_two("tests.distributed.division_worker", tmp_path)]
    for queries in (7, 1):
        first, second = (Work.of_arrays(found, f"{queries} queries: ") for found in results)
        expected = divided_work(None, queries)
        assert_same_work(first, expected)
        assert len(first.numbers) == len(expected.numbers)
        for mine, other in zip(first.numbers, second.numbers):
            np.testing.assert_array_equal(mine, other)
        assert_read_once({name: [*first.read[name], *second.read[name]] for name in first.read}, queries)
        assert len(first.read["pool"]) == 12  # three of five classes, four images each

    for found in results:
        np.testing.assert_array_equal(found["told"], [[0, np.nan, 1 / 3], [1, np.nan, 1 / 3]])
        np.testing.assert_array_equal(found["unequal"], np.arange(6).reshape(3, 2) - 2**40)
        assert found["empty"].shape == (0, 2)
        np.testing.assert_array_equal(found["plain"], np.arange(0, 6, 2) - 2**40)
        np.testing.assert_array_equal(found["columns"], np.arange(24.0).reshape(2, 4, 3))


@pytest.mark.slow
def test_two_workers_train_like_one_device(tmp_path: Path) -> None:
    files = files_of_two("tests.distributed.worker", tmp_path)
    strategy = tf.distribute.get_strategy()
    expected, nudged = (run(strategy, CASE, STEPS, nudge=nudge).figures for nudge in (0.0, NUDGE))
    first, second = (dict(np.load(file)) for file in files)
    for name, values in first.items():
        np.testing.assert_array_equal(values, second[name], err_msg=name)
    assert_same_figures(first, expected, nudged)


@pytest.mark.slow
def test_two_workers_with_sharded_proxies_train_like_one_device(tmp_path: Path) -> None:
    files = files_of_two("tests.distributed.sharded_training_worker", tmp_path)
    first, second = (dict(np.load(file)) for file in files)
    found, expected, nudged = (
        {name.removeprefix(prefix): values for name, values in first.items() if name.startswith(prefix)}
        for prefix in ("two workers: ", "one device: ", "nudged: ")
    )
    assert {"proxies", "best proxies", "images", "proxy_staleness"} <= set(found)
    for name, values in found.items():
        np.testing.assert_array_equal(values, second[f"two workers: {name}"], err_msg=name)
    assert_same_figures(found, expected, nudged)
