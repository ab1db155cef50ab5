from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ccp_dml.data.splits import class_fold, hold_out_classes


@settings(max_examples=25, deadline=None, derandomize=True)
@given(num_classes=st.integers(2, 200), data=st.data())
def test_folds_cut_the_classes_into_blocks_from_the_end(num_classes: int, data: st.DataObject) -> None:
    num_folds = data.draw(st.integers(2, num_classes))
    folds = [class_fold(num_classes, num_folds, fold) for fold in range(1, num_folds + 1)]
    blocks = [validation.tolist() for _, validation in folds]
    assert np.concatenate(blocks[::-1]).tolist() == list(range(num_classes))
    assert max(map(len, blocks)) - min(map(len, blocks)) <= 1
    for train, validation in folds:
        assert train.tolist() == [c for c in range(num_classes) if c not in set(validation.tolist())]


def test_a_single_fold_holds_nothing_out() -> None:
    for part in class_fold(6, 1, 1):
        np.testing.assert_array_equal(part, np.arange(6))


@pytest.mark.parametrize("arguments", [(4, 0, 1), (4, 5, 1), (4, 2, 0), (4, 2, 3)])
def test_bad_folds(arguments: tuple[int, int, int]) -> None:
    with pytest.raises(ValueError, match="must be between 1 and"):
        class_fold(*arguments)


@pytest.mark.parametrize(("fraction", "held_out"), [(0, 0), (0.01, 1), (0.2, 2), (0.25, 2), (0.9, 9)])
def test_hold_out(fraction: float, held_out: int) -> None:
    train, validation = hold_out_classes(10, fraction)
    np.testing.assert_array_equal(np.concatenate([train, validation]), np.arange(10))
    assert len(validation) == held_out


@pytest.mark.parametrize(
    ("num_classes", "fraction", "message"),
    [
        (10, 1.0, r"\[0, 1\), found 1.0"),
        (10, -0.1, "found -0.1"),
        (10, 0.99, "none to train"),
        (1, 0.5, "1 class\\(es\\)"),
    ],
)
def test_bad_hold_out(num_classes: int, fraction: float, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        hold_out_classes(num_classes, fraction)
