"""Formulas and headlines of the scaling benchmark."""

from __future__ import annotations

import pytest

from benchmarks.scaling import report
from benchmarks.scaling.formulas import CLASSES, DIMENSIONS, PROXIES_PER_CLASS, Proxies, memory_table, size


def test_eight_replicas_divide_ten_million_classes():
    whole, divided = (Proxies(10**7, 1, 512, 512, replicas) for replicas in (1, 8))
    assert whole.bytes_of_table == 10**7 * 512 * 4
    assert divided.bytes_of_table == whole.bytes_of_table / 8
    assert divided.bytes_of_distances == 1_250_000 * 512 * 4


def test_classes_that_do_not_divide_are_rounded_up():
    assert Proxies(10, 3, 4, 2, 4).rows == 9


@pytest.mark.parametrize("classes", [10, 10**7])
def test_the_bytes_handed_over_do_not_depend_on_the_classes(classes):
    assert Proxies(classes, 1, 64, 64, 2).bytes_of_loss == 64 * 64 * 4 + 5 * 64 * 4
    assert Proxies(classes, 1, 64, 64, 1).bytes_of_loss == 0


def test_the_table_has_a_row_for_each_size():
    assert len(list(memory_table())) == 2 + len(CLASSES) * len(PROXIES_PER_CLASS) * len(DIMENSIONS)


def test_steps_and_losses_are_compared_with_one_device():
    def row(processor: float) -> dict[str, float]:
        return {
            "milliseconds": 9.0,
            "processor_milliseconds": processor,
            "images_per_second": 3.0,
            "bytes_handed_over": 1e6,
        }

    steps = {"whole/1": row(2.0), "whole/2": row(3.0), "sharded/2": row(5.0)}
    calls = {"a/10/whole/1": row(9.0), "a/10/sharded/2": row(1.0)}
    calls |= {"a/20/whole/1": row(4.0), "a/20/sharded/2": row(6.0), "a/20/sharded/4": row(8.0)}
    found = {"replicas": {"results": steps}, "sharded": {"results": calls}}
    assert [headline.value for headline in report.headlines(found)] == [1.5, 2.5, 1.5]
    assert list(report.headlines({})) == []
    *_, single, sharded, whole = report.replicas_table("setting", steps)
    assert single.startswith("| 1 | whole | 9 | 2 (1.00×) |")
    assert sharded.startswith("| 2 | sharded | 9 | 5 (2.50×) |")
    assert whole.endswith("| 3 (1.50×) | 3 | 1 MB |")


@pytest.mark.parametrize("count, text", [(12, "12 B"), (1.5e6, "1.5 MB"), (2.05e10, "20.5 GB")])
def test_sizes_in_words(count, text):
    assert size(count) == text
