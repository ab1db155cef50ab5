"""Sources made from arrays, files, tables and folders: classes, files, errors."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from ccp_dml.data import from_arrays, from_dataframe, from_files, from_folder

CLASSES = ("cat", "cow", "dog", "fox")


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    """A folder of four classes with four noisy photographs each, in four formats."""
    rng = np.random.default_rng(0)
    for label in CLASSES:
        (tmp_path / label).mkdir()
        for number, suffix in enumerate(("jpg", "png", "bmp", "gif")):
            image = Image.fromarray(rng.integers(0, 256, [20 + number, 30, 3], np.uint8))
            image.save(tmp_path / label / f"{number}.{suffix}")
    return tmp_path


@pytest.mark.parametrize(
    ("labels", "numbers", "names"),
    [
        ([7, 3, 7], [1, 0, 1], ("3", "7")),
        (["b", "a", "b"], [1, 0, 1], ("a", "b")),
        (np.array(["b", "a", "b"], object), [1, 0, 1], ("a", "b")),
        (np.array([200, 10, 200], np.uint8), [1, 0, 1], ("10", "200")),
    ],
    ids=["integers", "strings", "objects", "uint8"],
)
def test_classes_are_the_distinct_labels_in_ascending_order(labels, numbers, names):
    source = from_arrays(np.zeros([3, 2]), labels)
    assert source.labels.tolist() == numbers
    assert source.class_names == names


def test_arrays_and_random_access_objects_give_the_same_pixels():
    images = np.random.default_rng(0).integers(0, 256, [5, 4, 6, 3], np.uint8)

    class Lazy:
        def __len__(self) -> int:
            return 5

        def __getitem__(self, row: int) -> np.ndarray:
            return images[row]

    for given in (images, list(images), Lazy()):
        records = from_arrays(given, [0, 0, 1, 1, 1]).source
        np.testing.assert_array_equal(records.pixels([4, 0]), images[[4, 0]])
        decoded = [np.asarray(Image.open(io.BytesIO(data))) for data in records.encoded([4, 0])]
        np.testing.assert_array_equal(decoded, images[[4, 0]])


def test_files_are_converted_as_in_preparation(photos):
    from ccp_dml.datasets.common.images import upright_rgb

    paths = sorted(photos.glob("*/*"))
    source = from_files(paths, [path.parent.name for path in paths])
    expected = [upright_rgb(path.read_bytes(), "") for path in paths]
    assert source.encoded([7, 0, 3]) == [expected[7], expected[0], expected[3]]


def test_a_table_and_a_folder_list_the_same_files(photos):
    names = [f"{label}/{path.name}" for label in CLASSES for path in sorted((photos / label).iterdir())]
    table = {"file": names, "label": [name[:3] for name in names]}
    listed, found = from_dataframe(table, "file", "label", root=photos), from_folder(photos)
    assert listed.class_names == found.class_names == CLASSES
    np.testing.assert_array_equal(listed.labels, found.labels)
    assert listed.encoded(range(16)) == found.encoded(range(16))
    assert from_folder(photos, split="test").class_names == ("dog", "fox")


def test_a_manifest_gives_the_splits(photos):
    files = [f"{label}/{number}" for label in CLASSES for number in ("0.jpg", "1.png")]
    rows = [f"{file},{file[:2]},{'train' if file < 'd' else 'test'}" for file in files]
    (photos / "manifest.csv").write_text("\n".join(["file,label,split", *rows]))
    assert from_folder(photos, split="train").class_names == ("ca", "co")
    assert len(from_folder(photos)) == 8


@pytest.mark.parametrize(
    ("make", "kind", "message"),
    [
        (
            lambda p: from_arrays(np.zeros([3, 2]), [0, 1]),
            ValueError,
            r"labels have the shape \(2,\); expected \(3,\)",
        ),
        (lambda p: from_arrays(np.zeros([2, 2]), np.eye(2)), ValueError, r"labels have the shape \(2, 2\)"),
        (
            lambda p: from_arrays(np.zeros([2, 2]), [0.0, 1.0]),
            ValueError,
            "float64; expected integers or strings",
        ),
        (lambda p: from_arrays([], []), ValueError, "images are empty"),
        (lambda p: from_arrays(np.zeros([1, 2]), [0]).encoded([0]), ValueError, "expected uint8"),
        (lambda p: from_files([p / "cat/0.jpg", p / "no.jpg"], [0, 0]), FileNotFoundError, "1 of 2 .*no.jpg"),
        (lambda p: from_dataframe({"a": []}, "a", "b"), KeyError, "no column 'b'; expected one of a"),
        (lambda p: from_folder(p / "none"), ValueError, "does not exist"),
        (lambda p: from_folder(p, split="query"), ValueError, "no images of the split 'query'"),
        (lambda p: _damaged(p), ValueError, "0.jpg: not a JPEG"),
    ],
)
def test_errors_name_what_is_wrong(photos, make, kind, message):
    with pytest.raises(kind, match=message):
        make(photos)


def _damaged(photos: Path) -> None:
    (photos / "cat/0.jpg").write_bytes(b"no image")
    from_folder(photos).encoded([0])
