"""Files of TensorBoard's projector, and the sheet of its pictures."""

from __future__ import annotations

import pathlib

import numpy as np
import pytest
import tensorflow as tf
from google.protobuf import text_format
from tensorboard.plugins.projector import ProjectorConfig

from ccp_dml.monitoring.projector import sprite_sheet, write_projector
from tests.monitoring.test_panels import plain


def read_config(directory: pathlib.Path) -> ProjectorConfig:
    return text_format.Parse((directory / "projector_config.pbtxt").read_text(), ProjectorConfig())


def test_the_files_hold_points_labels_and_pictures_and_have_relative_names(tmp_path):
    rng = np.random.default_rng(0)
    embeddings = rng.normal(size=[5, 3]).astype(np.float32)
    thumbnails = rng.integers(0, 256, [5, 4, 4, 3]).astype(np.uint8)
    classes = ["cat", "tab\tand\nline", "dog", "cat", "owl"]
    write_projector(str(tmp_path), embeddings, {"class": classes, "id": range(5)}, thumbnails, image_size=4)
    (entry,) = read_config(tmp_path).embeddings
    np.testing.assert_allclose(
        np.loadtxt(tmp_path / entry.tensor_path, delimiter="\t"), embeddings, rtol=1e-5
    )
    assert list(entry.tensor_shape) == [5, 3]
    assert (tmp_path / entry.metadata_path).read_text().splitlines() == [
        "class\tid",
        "cat\t0",
        "tab and line\t1",
        "dog\t2",
        "cat\t3",
        "owl\t4",
    ]
    assert list(entry.sprite.single_image_dim) == [4, 4]
    sheet = tf.io.decode_png((tmp_path / entry.sprite.image_path).read_bytes()).numpy()
    for i, thumbnail in enumerate(thumbnails):  # row by row, as TensorBoard cuts it
        row, column = divmod(i, sheet.shape[1] // 4)
        np.testing.assert_array_equal(sheet[4 * row : 4 * row + 4, 4 * column : 4 * column + 4], thumbnail)
    assert sheet.shape[0] == sheet.shape[1]


def test_metadata_of_one_column_has_no_header(tmp_path):
    write_projector(str(tmp_path), np.ones([2, 3], np.float32), {"class": ["a", "b"]}, [plain(0), plain(9)])
    (entry,) = read_config(tmp_path).embeddings
    assert (tmp_path / entry.metadata_path).read_text() == "a\nb\n"


@pytest.mark.parametrize(
    ("embeddings", "metadata_columns", "thumbnails", "message"),
    [
        (np.ones([0, 3]), {"class": []}, [], r"shape \(0, 3\)"),
        (np.ones([2, 3]), {}, np.zeros([2, 4, 4, 3], np.uint8), "no column"),
        (np.ones([2, 3]), {"class": ["a"]}, np.zeros([2, 4, 4, 3], np.uint8), "'class' has 1 values for 2"),
        (np.ones([2, 3]), {"class": "ab"}, np.zeros([3, 4, 4, 3], np.uint8), "3 images for 2 points"),
        (np.ones([2, 3]), {"class": "ab"}, np.zeros([2, 4, 4, 3], np.float32), "uint8"),
    ],
)
def test_errors_name_the_bad_input(tmp_path, embeddings, metadata_columns, thumbnails, message):
    with pytest.raises(ValueError, match=message):
        write_projector(str(tmp_path), embeddings, metadata_columns, thumbnails)
    assert list(tmp_path.iterdir()) == []


def test_images_of_different_sizes_keep_their_aspect_ratio():
    sheet = sprite_sheet([plain(0, 10, 40), plain(0, 40, 10)], size=40)
    assert (sheet[:40, :40] == 0).all(axis=2).sum() == 400
    assert (sheet[20, :40] == 0).all()
    assert (sheet[:40, 60] == 0).all()


@pytest.mark.parametrize("count, side", [(1, 1), (2, 2), (4, 2), (5, 3), (10, 4)])
def test_sprites_fill_a_square_row_by_row(count, side):
    sheet = sprite_sheet([plain(10 * i) for i in range(count)], size=8)
    assert sheet.shape == (8 * side, 8 * side, 3)
    cells = sheet.reshape(side, 8, side, 8, 3).transpose(0, 2, 1, 3, 4).reshape(side * side, -1)
    assert [int(cell.mean()) for cell in cells[:count]] == [10 * i for i in range(count)]
    assert (cells[count:] == 255).all()


def test_bad_sheets_are_errors():
    with pytest.raises(ValueError, match="at least one image"):
        sprite_sheet([])
    with pytest.raises(ValueError, match="at most 8192"):
        sprite_sheet([plain(0)] * 10, size=4000)
