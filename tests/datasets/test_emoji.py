"""The built-in emoji data set."""

from __future__ import annotations

import io
import os
import zipfile

import numpy as np
import pytest
import tensorflow_datasets as tfds
from PIL import Image

from ccp_dml.datasets.emoji.emoji_dataset_builder import DESIGNS, Builder


def records(builder, split):
    found = builder.as_data_source(split, decoders={"image": tfds.decode.SkipDecoding()})
    return sorted(found, key=lambda record: record["image_id"])


@pytest.fixture(autouse=True)
def _quiet():
    tfds.disable_progress_bar()


@pytest.fixture(scope="module")
def emoji(tmp_path_factory):
    builder = Builder(data_dir=tmp_path_factory.mktemp("emoji"), file_format="array_record")
    builder.download_and_prepare()
    return builder


def test_the_first_half_of_the_classes_trains(emoji):
    train, test = records(emoji, "train"), records(emoji, "test")
    assert [record["label"] for record in train] == np.repeat(np.arange(322), 5).tolist()
    assert [record["label"] for record in test] == np.repeat(np.arange(322, 645), 5).tolist()
    assert [record["image_id"] for record in train + test] == list(range(3225))
    files = [record["file"].decode() for record in train + test]
    assert {file.split("/")[1] for file in files} == {f"{design}.webp" for design in DESIGNS}
    codes = [int(file.split("/")[0][2:], 16) for file in files]
    assert codes == sorted(codes)
    names = emoji.info.features["label"].names
    assert all(names[r["label"]].startswith(r["file"].decode().split("/")[0] + " ") for r in train + test)


def test_images_are_drawings_on_white(emoji):
    with zipfile.ZipFile(Builder.ARCHIVE) as archive:
        for record in records(emoji, "train")[:50] + records(emoji, "test")[-50:]:
            image = Image.open(io.BytesIO(record["image"]))
            assert (image.format, image.mode, image.size) == ("PNG", "RGB", (72, 72))
            pixels = np.asarray(image)
            assert np.mean(pixels.min(-1) < 240) > 0.01
            original = Image.open(io.BytesIO(archive.read(record["file"].decode())))
            np.testing.assert_array_equal(pixels, np.asarray(original.convert("RGB")))


def test_classes_have_different_drawings(emoji):
    """Two pairs of emoji share a drawing."""
    images = {record["image"] for split in ("train", "test") for record in records(emoji, split)}
    assert len(images) == 3225 - 2


def test_the_archive_is_small():
    assert os.path.getsize(Builder.ARCHIVE) <= 5_000_000


def test_an_archive_with_another_number_of_classes_is_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(Builder, "NUM_CLASSES", 646)
    with pytest.raises(ValueError, match="lists 645 classes; expected 646"):
        Builder(data_dir=tmp_path).download_and_prepare()
