"""The data sets: in a checkout, those of its folder `datasets`, which an installed copy has here instead."""

from pathlib import Path

__path__ = [str(Path(__file__).parents[2] / "datasets")]
