from __future__ import annotations

import numpy as np
import pytest

from ccp_dml.monitoring.panels import retrieval_panel, sprite_sheet


def plain(value: int, height: int = 20, width: int = 20) -> np.ndarray:
    return np.full((height, width, 3), value, np.uint8)


def colours(picture: np.ndarray) -> tuple[int, int]:
    """Numbers of distinctly green and distinctly red pixels."""
    red, green = picture[..., 0].astype(int), picture[..., 1].astype(int)
    return int((green - red > 60).sum()), int((red - green > 60).sum())


def test_frames_tell_right_from_wrong_with_and_without_colour():
    image = plain(90)
    right = retrieval_panel([image], [[image]], [[True]], size=48)
    wrong = retrieval_panel([image], [[image]], [[False]], size=48)
    assert right.dtype == np.uint8
    assert right.shape == wrong.shape
    assert colours(right)[0] > 100
    assert colours(right)[1] == 0
    assert colours(wrong)[0] == 0
    assert colours(wrong)[1] > 100
    # Where the solid frame is coloured and the dashed one is white: visible in any grey print.
    coloured = (right != 255).any(axis=2) & (wrong == 255).all(axis=2)
    assert coloured.sum() > 50


def test_size_grows_with_rows_and_columns_and_the_border_is_white():
    image = plain(0, 10, 30)
    small = retrieval_panel([image], [[image] * 2], np.ones([1, 2]), size=32)
    large = retrieval_panel([image] * 3, [[image] * 4] * 3, np.ones([3, 4]), size=32)
    assert large.shape[0] > 2 * small.shape[0]
    assert large.shape[1] > small.shape[1]
    for edge in (large[0], large[-1], large[:, 0], large[:, -1]):
        assert (edge == 255).all()


def test_images_of_different_sizes_keep_their_aspect_ratio():
    sheet = sprite_sheet([plain(0, 10, 40), plain(0, 40, 10)], size=40)
    assert (sheet[:40, :40] == 0).all(axis=2).sum() == 400
    assert (sheet[20, :40] == 0).all()
    assert (sheet[:40, 60] == 0).all()


@pytest.mark.parametrize("count, side", [(1, 1), (2, 2), (4, 2), (5, 3), (10, 4)])
def test_sprites_lie_row_by_row_in_a_square(count, side):
    sheet = sprite_sheet([plain(10 * i) for i in range(count)], size=8)
    assert sheet.shape == (8 * side, 8 * side, 3)
    cells = sheet.reshape(side, 8, side, 8, 3).transpose(0, 2, 1, 3, 4).reshape(side * side, -1)
    assert [int(cell.mean()) for cell in cells[:count]] == [10 * i for i in range(count)]
    assert (cells[count:] == 255).all()


@pytest.mark.parametrize(
    "queries, neighbors, correct, message",
    [
        ([], [], np.zeros([0, 0]), "0 queries"),
        ([plain(0)], [[]], np.zeros([1, 0]), "at least 1"),
        ([plain(0)] * 2, [[plain(0)]], np.zeros([1, 1]), "2 queries"),
        ([plain(0)], [[plain(0)]], np.zeros([1, 2]), "correct must have shape"),
        ([plain(0)], [[plain(0).astype(float)]], np.zeros([1, 1]), "uint8"),
        ([plain(0)[..., 0]], [[plain(0)]], np.zeros([1, 1]), "uint8"),
    ],
)
def test_bad_panels_are_errors(queries, neighbors, correct, message):
    with pytest.raises(ValueError, match=message):
        retrieval_panel(queries, neighbors, correct)


def test_bad_sizes_are_errors():
    with pytest.raises(ValueError, match="at least 16"):
        retrieval_panel([plain(0)], [[plain(0)]], [[1]], size=8)
    with pytest.raises(ValueError, match="at least one image"):
        sprite_sheet([])
    with pytest.raises(ValueError, match="at most 8192"):
        sprite_sheet([plain(0)] * 10, size=4000)
