"""Every recorded vector of the original is reproduced, or deviates for a documented reason."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.parity.check import check_file
from tests.parity.deviations import DEVIATIONS

GOLDEN = sorted((Path(__file__).parent / "golden").glob("*.npz"))


@pytest.mark.parametrize("path", GOLDEN, ids=lambda path: path.stem)
def test_golden_files_are_reproduced(path: Path) -> None:
    report = check_file(path)
    assert not report.failures, "\n".join(report.failures)
    assert not report.not_ported, "\n".join(report.not_ported)


def test_deviations_are_documented() -> None:
    text = (Path(__file__).parents[2] / "docs" / "deviations.md").read_text()
    for deviation in DEVIATIONS.values():
        assert f'id="{deviation.number}"' in text
