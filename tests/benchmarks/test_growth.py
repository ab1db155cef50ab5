"""Exponents, units and extrapolations of the growth benchmark."""

from __future__ import annotations

import pytest

from benchmarks.growth import report
from benchmarks.growth.components import COMPONENTS


def test_the_exponent_is_fitted_to_the_largest_sizes():
    sizes = [1, 2, 4, 8, 16]
    assert report.exponent(sizes, [5, 5, 3 * 4**1.5, 3 * 8**1.5, 3 * 16**1.5]) == pytest.approx(1.5)


def test_too_few_values_above_chance_have_no_exponent():
    assert report.exponent([1, 2, 4, 8], [0, 0, 7, 14], least=5.0) is None


def test_every_extrapolated_component_is_measured():
    for need in report.NEEDS:
        assert need.axis in COMPONENTS[need.component].axes


@pytest.mark.parametrize(
    "seconds, text", [(0.0123, "12 ms"), (1.54, "1.5 s"), (150, "2.5 min"), (7300, "2.0 h"), (1e6, "12 days")]
)
def test_durations_in_words(seconds, text):
    assert report.duration(seconds) == text


@pytest.mark.parametrize(
    "megabytes, text", [(0, "0 MB"), (168.2, "168 MB"), (51_200, "51 GB"), (2.5e6, "2.5 TB")]
)
def test_memory_in_words(megabytes, text):
    assert report.room(megabytes) == text
