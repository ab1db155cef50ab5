"""Fashion-MNIST: the idx format, the four files, and the data set."""

from __future__ import annotations

import gzip
import io
import pathlib
import struct

import numpy as np
import pytest
import tensorflow_datasets as tfds
from PIL import Image

from ccp_dml.data import catalog
from ccp_dml.data.options import SourceOptions
from ccp_dml.datasets.fashion_mnist import source
from ccp_dml.errors import UserError

DUMMY = pathlib.Path(source.__file__).with_name("dummy_data")


def write_idx(path: pathlib.Path, array: np.ndarray, *, kind: int = 8, shape: tuple | None = None) -> None:
    """Writes an idx file number by number, following the description of the format."""
    shape = array.shape if shape is None else shape
    data = bytearray([0, 0, kind, len(shape)])
    for size in shape:
        data += struct.pack(">I", size)
    for number in array.reshape(-1).tolist():
        data.append(number)
    path.write_bytes(gzip.compress(bytes(data)))


@pytest.mark.parametrize("shape", [(7,), (3, 4), (2, 3, 5), (0, 28, 28)])
def test_an_idx_file_is_read(tmp_path: pathlib.Path, shape: tuple[int, ...]) -> None:
    array = np.random.default_rng(0).integers(0, 256, shape, np.uint8)
    write_idx(tmp_path / "a.gz", array)
    found = source.read_idx(tmp_path / "a.gz", len(shape))
    assert found.dtype == np.uint8
    np.testing.assert_array_equal(found, array)


def test_files_in_another_format_are_named(tmp_path: pathlib.Path) -> None:
    path, array = tmp_path / "a.gz", np.zeros((2, 3), np.uint8)
    write_idx(path, array)
    with pytest.raises(source.SourceError, match=r"a\.gz: begins with 00 00 08 02; expected 00 00 08 01"):
        source.read_idx(path, 1)
    write_idx(path, array, kind=13)
    with pytest.raises(source.SourceError, match="begins with 00 00 0d 02"):
        source.read_idx(path, 2)
    write_idx(path, array, shape=(2, 4))
    with pytest.raises(source.SourceError, match="holds 6 numbers; expected 8 = 2 x 4"):
        source.read_idx(path, 2)
    path.write_bytes(gzip.compress(bytes([0, 0, 8, 2, 0])))
    with pytest.raises(source.SourceError, match="begins with 00 00 08 02"):
        source.read_idx(path, 2)
    for damaged in (b"no gzip", gzip.compress(bytes(1000))[:-12]):
        path.write_bytes(damaged)
        with pytest.raises(source.SourceError, match=r"a\.gz: not a gzip file, or a damaged one"):
            source.read_idx(path, 2)


def test_the_message_names_missing_files_and_where_to_get_them(tmp_path: pathlib.Path) -> None:
    for file in DUMMY.glob("train-*"):
        (tmp_path / file.name).write_bytes(file.read_bytes())
    with pytest.raises(UserError) as error:
        catalog.check(SourceOptions("fashion_mnist", str(tmp_path)))
    message = str(error.value)
    for part in (f"--data_dir={tmp_path}: t10k-images", "t10k-labels", "dataset-fashion-mnist", "https://"):
        assert part in message
    assert "train-" not in message
    assert "\n" not in message


def test_files_that_do_not_belong_together_are_refused(tmp_path: pathlib.Path) -> None:
    images, labels = source._FILES["train"]
    write_idx(tmp_path / labels, np.array([0, 10], np.uint8))
    write_idx(tmp_path / images, np.zeros((2, 28, 28), np.uint8))
    with pytest.raises(source.SourceError, match="has the label 10; expected 0 to 9"):
        source.read_split(tmp_path, "train")
    write_idx(tmp_path / images, np.zeros((3, 28, 28), np.uint8))
    with pytest.raises(source.SourceError, match="holds 3 x 28 x 28 numbers; expected 2 x 28 x 28"):
        source.read_split(tmp_path, "train")


def test_both_splits_have_the_same_classes(tmp_path: pathlib.Path) -> None:
    tfds.disable_progress_bar()
    assert catalog.check(SourceOptions("fashion_mnist", str(DUMMY))) == 10
    data = catalog.load(SourceOptions("fashion_mnist", data_dir=str(DUMMY), prepared_dir=str(tmp_path)))
    assert data.train.class_names == data.test.class_names == source.CLASS_NAMES
    assert data.train.image_ids.tolist() + data.test.image_ids.tolist() == list(range(40))
    for split, images in (("train", data.train), ("test", data.test)):
        pixels, labels = source.read_split(DUMMY, split)
        assert images.labels.tolist() == labels.tolist()
        for encoded, expected in zip(images.encoded(range(len(labels))), pixels, strict=True):
            found = np.asarray(Image.open(io.BytesIO(encoded)))
            np.testing.assert_array_equal(found, np.stack([expected] * 3, axis=-1))
