from __future__ import annotations

import pytest

from benchmarks import growth_report
from benchmarks.growth_parts import PARTS


def test_the_exponent_is_that_of_the_largest_sizes():
    sizes = [1, 2, 4, 8, 16]
    assert growth_report.exponent(sizes, [5, 5, 3 * 4**1.5, 3 * 8**1.5, 3 * 16**1.5]) == pytest.approx(1.5)


def test_too_few_values_that_can_be_told_from_nothing_have_no_exponent():
    assert growth_report.exponent([1, 2, 4, 8], [0, 0, 7, 14], least=5.0) is None


def test_what_is_extrapolated_is_measured():
    for need in growth_report.NEEDS:
        assert need.axis in PARTS[need.part].axes


@pytest.mark.parametrize(
    "seconds, text", [(0.0123, "12 ms"), (1.54, "1.5 s"), (150, "2.5 min"), (7300, "2.0 h"), (1e6, "12 days")]
)
def test_durations(seconds, text):
    assert growth_report.duration(seconds) == text


@pytest.mark.parametrize(
    "megabytes, text", [(0, "0 MB"), (168.2, "168 MB"), (51_200, "51 GB"), (2.5e6, "2.5 TB")]
)
def test_room(megabytes, text):
    assert growth_report.room(megabytes) == text
