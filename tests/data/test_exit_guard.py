from __future__ import annotations

import gc
import subprocess
import sys

import pytest

from ccp_dml.data.pipeline import guarded

# A failing program whose traceback keeps a pipeline alive that is calling Python.
PROGRAM = """
import time
import tensorflow as tf
from ccp_dml.data.pipeline import guarded

def slow(number):
    time.sleep(0.1)
    return number

def main():
    function = guarded(slow)
    numbers = tf.data.Dataset.range(10**9).map(lambda n: tf.numpy_function(function, [n], tf.int64))
    numbers = numbers.prefetch(2)
    iterator = iter(numbers)
    for _ in range(4):
        next(iterator)
    raise RuntimeError("the end")

main()
"""


def test_a_program_with_a_living_pipeline_ends() -> None:
    ended = subprocess.run(
        [sys.executable, "-c", PROGRAM], capture_output=True, text=True, timeout=120, check=False
    )
    assert ended.returncode == 1
    assert "the end" in ended.stderr


def test_results_and_errors_pass_through() -> None:
    function = guarded(lambda numerator, denominator: numerator / denominator)
    assert function(6, 3) == 2
    with pytest.raises(ZeroDivisionError):
        function(1, 0)


def test_forgetting_a_function_waits_for_nothing(monkeypatch) -> None:
    waits = []
    monkeypatch.setattr("ccp_dml.data.pipeline.time.sleep", waits.append)
    guarded(lambda: None)()
    gc.collect()
    assert waits == []
