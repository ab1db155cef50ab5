"""The recorded cases in which this library deliberately differs from the original.

Each is a plain bug of the original; `docs/deviations.md` says what the original does and what is done here.
"""

from __future__ import annotations

from typing import NamedTuple


class Deviation(NamedTuple):
    """A numbered entry of `docs/deviations.md` and the reason in a few words."""

    number: int
    reason: str


DEVIATIONS: dict[tuple[str, str], Deviation] = {
    ("callback_trace", "no_early_stopping"): Deviation(
        3, "without early stopping the original never records a solution and pulls the weights to zero"
    ),
}
