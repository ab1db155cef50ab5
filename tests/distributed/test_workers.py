"""Two workers that talk over the loopback interface train what one process does."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf

from tests.distributed.division import Work, assert_read_once, assert_same_work, divided_work
from tests.distributed.processes import files_of_two
from tests.distributed.runs import run
from tests.distributed.worker import CASE, STEPS


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
        assert len(first.read["pool"]) == 12  # Three of five classes, four images each.

    for found in results:
        np.testing.assert_array_equal(found["told"], [[0, np.nan, 1 / 3], [1, np.nan, 1 / 3]])
        np.testing.assert_array_equal(found["unequal"], np.arange(6).reshape(3, 2) - 2**40)
        assert found["empty"].shape == (0, 2)
        np.testing.assert_array_equal(found["plain"], np.arange(0, 6, 2) - 2**40)
        np.testing.assert_array_equal(found["columns"], np.arange(24.0).reshape(2, 4, 3))


@pytest.mark.slow
def test_two_workers_train_what_one_does(tmp_path: Path) -> None:
    files = files_of_two("tests.distributed.worker", tmp_path)
    expected = run(tf.distribute.get_strategy(), CASE, STEPS)
    values = [*expected.values, *(gradient for step in expected.gradients for gradient in step)]
    first, second = (list(np.load(file).values()) for file in files)
    assert len(first) == len(values)
    for mine, other, alone in zip(first, second, values):
        np.testing.assert_array_equal(mine, other)
        assert np.linalg.norm(mine - alone) <= 1e-5 * np.linalg.norm(alone)


@pytest.mark.slow
def test_two_workers_with_sharded_proxies_train_what_one_device_does(tmp_path: Path) -> None:
    files = files_of_two("tests.distributed.sharded_training_worker", tmp_path)
    first, second = (np.load(file) for file in files)
    names = [name.removeprefix("alone ") for name in first.files if name.startswith("alone ")]
    assert {"proxies", "best proxies", "images", "proxy_staleness"} <= set(names)
    for name in names:
        np.testing.assert_array_equal(first[name], second[name], err_msg=name)
        np.testing.assert_allclose(first[name], first[f"alone {name}"], rtol=1e-5, atol=1e-5, err_msg=name)
