"""Recorded cases, which a parity adapter takes, and comparisons, which it returns."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np


@dataclass(frozen=True)
class Case:
    """One recorded case of a golden file.

    Attributes:
        name: name of the case inside its file.
        config: hyper-parameters of the case, as recorded.
        arrays: the case's arrays, by name.
        file: all arrays of the file, keyed `<case>/<name>`; some cases share inputs.
    """

    name: str
    config: dict[str, Any]
    arrays: dict[str, np.ndarray]
    file: dict[str, np.ndarray]


@dataclass(frozen=True)
class Comparison:
    """A value of this library and the recorded value.

    Passes if `|actual - expected| <= atol + rtol * |expected|` everywhere and the shapes are equal.
    NaN equals NaN.
    """

    name: str
    actual: np.ndarray
    expected: np.ndarray
    rtol: float = 1e-5
    atol: float = 0.0

    @property
    def error(self) -> float:
        """Largest absolute difference; infinite if the shapes differ."""
        actual, expected = np.asarray(self.actual, np.float64), np.asarray(self.expected, np.float64)
        if actual.shape != expected.shape:
            return float("inf")
        if not np.array_equal(np.isnan(actual), np.isnan(expected)):
            return float("inf")
        difference = np.abs(actual - expected)
        return float(np.nanmax(difference)) if difference.size and not np.isnan(difference).all() else 0.0

    @property
    def passed(self) -> bool:
        """True if the values agree within the tolerance."""
        actual, expected = np.asarray(self.actual, np.float64), np.asarray(self.expected, np.float64)
        return actual.shape == expected.shape and bool(
            np.allclose(actual, expected, rtol=self.rtol, atol=self.atol, equal_nan=True)
        )


class NotPorted(Exception):
    """The library has no counterpart of a recorded case."""
