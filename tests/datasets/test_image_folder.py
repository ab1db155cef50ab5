"""The preparation of a user's folder of images."""

from __future__ import annotations

import pickle

import numpy as np
import pytest
import tensorflow_datasets as tfds
from PIL import Image

from ccp_dml.data import catalog
from ccp_dml.data.options import SourceOptions
from ccp_dml.datasets.common.images import ImageError
from ccp_dml.datasets.image_folder.image_folder_dataset_builder import Builder


def write_images(root, num_classes=4, images_per_class=2):
    generator = np.random.default_rng(0)
    for label in range(num_classes):
        folder = root / f"class {label} é"
        folder.mkdir(parents=True)
        for i in range(images_per_class):
            pixels = generator.integers(0, 256, (12, 16, 3), dtype=np.uint8)
            Image.fromarray(pixels).save(folder / f"{i}.jpg", quality=95)
    return root


def truncate(file):
    file.write_bytes(file.read_bytes()[:-40])


def records(builder, split):
    found = builder.as_data_source(split, decoders={"image": tfds.decode.SkipDecoding()})
    return sorted(found, key=lambda record: record["image_id"])


def make(source_dir, prepared_dir, **options):
    return Builder(source_dir=source_dir, data_dir=prepared_dir, file_format="array_record", **options)


@pytest.fixture(autouse=True)
def _quiet():
    tfds.disable_progress_bar()


def test_plain_jpegs_are_stored_as_they_are(tmp_path):
    source = write_images(tmp_path / "my photos")
    builder = make(source, tmp_path / "prepared")
    builder.download_and_prepare()
    assert builder.data_path.parent.name.startswith("my_photos-")
    names = builder.info.features["label"].names
    assert names == [f"class {label} é" for label in range(4)]
    found = [(split, record) for split in ("train", "test") for record in records(builder, split)]
    assert [record["image_id"] for _, record in found] == list(range(8))
    for split, record in found:
        file = record["file"].decode()
        assert record["image"] == (source / file).read_bytes()
        assert names[record["label"]] == file.split("/")[0]
        assert split == ("train" if record["label"] < 2 else "test")


def test_a_manifest_may_have_queries_and_a_gallery(tmp_path):
    source = write_images(tmp_path / "source")
    files = sorted(str(file.relative_to(source)) for file in source.rglob("*.jpg"))
    splits = ["train"] * 4 + ["query", "gallery", "gallery", "gallery"]
    rows = [f"{file},{file.split('/')[0]},{split}" for file, split in zip(files, splits)]
    (source / "manifest.csv").write_text("\n".join(["file,label,split", *rows]), encoding="utf-8")
    builder = make(source, tmp_path / "prepared")
    builder.download_and_prepare()
    labels = {split: [record["label"] for record in records(builder, split)] for split in builder.info.splits}
    assert labels == {"train": [0, 0, 1, 1], "query": [2], "gallery": [2, 3, 3]}


def test_changed_images_are_prepared_again(tmp_path):
    source = write_images(tmp_path / "source")
    first = make(source, tmp_path / "prepared")
    first.download_and_prepare()
    changed = source / "class 0 é" / "0.jpg"
    changed.write_bytes((source / "class 3 é" / "1.jpg").read_bytes())
    second = make(source, tmp_path / "prepared")
    assert second.data_dir != first.data_dir
    second.download_and_prepare()
    assert records(second, "train")[0]["image"] == changed.read_bytes()
    assert records(first, "train")[0]["image"] != changed.read_bytes()


def test_unusable_images_are_reported_together_and_nothing_is_prepared(tmp_path):
    source = write_images(tmp_path / "source", images_per_class=8)
    bad = sorted(source.rglob("[0-6].jpg"))[:-3]
    for file in bad:
        truncate(file)
    builder = make(source, tmp_path / "prepared")
    with pytest.raises(ImageError) as error:
        builder.download_and_prepare()
    summary, _, named = str(error.value).partition(": ")
    assert summary == "25 images cannot be used"
    assert [reason.split(": ")[0] for reason in named.split("; ")] == [str(file) for file in bad]
    assert [path.name for path in (tmp_path / "prepared").rglob("*") if path.is_file()] == []


def test_a_single_unusable_image_is_one_line(tmp_path):
    source = write_images(tmp_path / "source")
    bad = source / "class 2 é" / "1.jpg"
    bad.write_bytes(b"")
    with pytest.raises(ImageError) as error:
        make(source, tmp_path / "prepared").download_and_prepare()
    assert str(error.value) == f"{bad}: the file is empty"


def test_damaged_metadata_gives_no_warning(tmp_path, recwarn):
    source = write_images(tmp_path / "source")
    file = source / "class 0 é" / "0.jpg"
    Image.open(file).save(file, exif=b"Exif\0\0II*\0\xff\xff\xff\xff")
    make(source, tmp_path / "prepared").download_and_prepare()
    assert [str(warning.message) for warning in recwarn if "EXIF" in str(warning.message)] == []


def test_an_interrupted_preparation_is_repeated(tmp_path, monkeypatch):
    source = write_images(tmp_path / "source")
    with monkeypatch.context() as patch:
        patch.setattr(Builder, "_generate_examples", lambda *_: (1 / 0 for _ in range(1)))
        with pytest.raises(ZeroDivisionError):
            make(source, tmp_path / "prepared").download_and_prepare()
    builder = make(source, tmp_path / "prepared")
    assert not builder.info.splits
    builder.download_and_prepare()
    assert len(records(builder, "train")) == 4


def test_the_builder_can_be_pickled(tmp_path):
    builder = make(write_images(tmp_path / "source"), tmp_path / "prepared", train_fraction=0.75)
    assert pickle.loads(pickle.dumps(builder)).data_dir == builder.data_dir


def test_a_line_counts_files_that_are_passed_over(tmp_path, capfd):
    source = write_images(tmp_path / "source")
    for index in range(50):
        (source / "class 1 é" / f"{index}.HEIC").write_bytes(b"")
    for _ in range(2):
        catalog.load(SourceOptions("image_folder", str(source), prepared_dir=str(tmp_path / "prepared")))
        lines = [line for line in capfd.readouterr().err.splitlines() if "passed over" in line]
        assert len(lines) == 1
        assert lines[0].startswith(
            f"warning: --data_dir={source}: 50 files are passed over: 50 .heic; images"
        )
