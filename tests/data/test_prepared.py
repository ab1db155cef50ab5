"""Prepared data: reading, the index beside it, damage, and the lock of the preparation."""

from __future__ import annotations

import pathlib
import shutil
import subprocess
import sys
from collections.abc import Callable
from types import SimpleNamespace

import numpy as np
import pytest

from ccp_dml.data import catalog, prepared
from ccp_dml.data.images import TestPreprocessing
from ccp_dml.data.options import SourceOptions
from ccp_dml.data.pipeline import inference_batches, reading_errors
from ccp_dml.errors import UserError
from ccp_dml.files import preparation_lock
from tests.data.image_folder import write_classes


class FakeSource:
    """A TFDS data source of records without images, in any order of ids."""

    def __init__(self, labels: list[int], image_ids: list[int]):
        self.records = [
            {"image": str(image_id).encode(), "label": label, "image_id": image_id}
            for label, image_id in zip(labels, image_ids)
        ]
        self.reads = 0

    def __len__(self) -> int:
        return len(self.records)

    def __getitems__(self, keys: list[int]) -> list[dict]:
        self.reads += len(keys)
        return [self.records[key] for key in keys]


class FakeBuilder:
    """The attributes of a TFDS builder that the library uses."""

    def __init__(self, folder: pathlib.Path, sources: dict[str, FakeSource], names: list[str]):
        self.data_path, self.sources = folder, sources
        self.info = SimpleNamespace(
            splits={split: SimpleNamespace(num_examples=len(source)) for split, source in sources.items()},
            features={"label": SimpleNamespace(names=names)},
            metadata=None,
        )

    def as_data_source(self, split: str, decoders: dict) -> FakeSource:
        assert set(decoders) == {"image"}
        return self.sources[split]


def build(folder: pathlib.Path, **sources: FakeSource) -> FakeBuilder:
    return FakeBuilder(folder, sources, ["a", "b", "c", "d"])


def test_images_are_in_the_order_of_their_ids(tmp_path: pathlib.Path) -> None:
    builder = build(tmp_path, train=FakeSource([1, 3, 1], [7, 5, 6]), test=FakeSource([2, 0], [9, 8]))
    data = prepared.load_prepared("fake", builder)
    assert data.train.image_ids.tolist() == [5, 6, 7]
    assert data.train.labels.tolist() == [1, 0, 0]
    assert data.train.class_names == ("b", "d")
    assert data.train.encoded([2, 0]) == [b"7", b"5"]
    assert data.test.class_names == ("a", "c")
    assert data.test.encoded([0, 1]) == [b"8", b"9"]


def test_the_index_of_labels_and_ids_is_written_once(tmp_path: pathlib.Path) -> None:
    def load() -> tuple[list[int], int]:
        train = FakeSource([0, 0, 1, 1], [0, 1, 2, 3])
        data = prepared.load_prepared("fake", build(tmp_path, train=train, test=FakeSource([2, 2], [4, 5])))
        return data.train.labels.tolist(), train.reads

    assert load() == ([0, 0, 1, 1], 4)
    assert load() == ([0, 0, 1, 1], 0)
    (tmp_path / "index-train.npy").write_bytes(b"damaged")
    assert load() == ([0, 0, 1, 1], 4)
    np.save(tmp_path / "index-train.npy", np.zeros((2, 3), np.int64))
    assert load() == ([0, 0, 1, 1], 4)
    assert sorted(file.name for file in tmp_path.iterdir()) == ["index-test.npy", "index-train.npy"]


def test_a_read_only_folder_can_be_read(tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise PermissionError("read-only")

    monkeypatch.setattr(pathlib.Path, "open", refuse)
    builder = build(tmp_path, train=FakeSource([0, 1], [0, 1]), test=FakeSource([2], [2]))
    assert len(prepared.load_prepared("fake", builder).train) == 2


def test_missing_and_empty_splits_are_refused(tmp_path: pathlib.Path) -> None:
    train = FakeSource([0], [0])
    with pytest.raises(ValueError, match="split 'test' has no images; found train"):
        prepared.load_prepared("fake", build(tmp_path, train=train))
    with pytest.raises(ValueError, match="split 'train' has no images"):
        prepared.load_prepared("fake", build(tmp_path, train=FakeSource([], []), test=train))


def test_default_folder_of_prepared_data(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TFDS_DATA_DIR", "/prepared")
    assert prepared.default_prepared_dir() == "/prepared"
    monkeypatch.delenv("TFDS_DATA_DIR")
    monkeypatch.setenv("XDG_CACHE_HOME", "/cache")
    assert prepared.default_prepared_dir() == "/cache/ccp_dml"


@pytest.fixture(scope="module")
def prepared_classes(tmp_path_factory) -> pathlib.Path:
    """A folder of images, `source`, and the data prepared from them, `prepared`."""
    top = tmp_path_factory.mktemp("data")
    write_classes(top / "source", 4)
    load(top)
    return top


@pytest.fixture
def top(prepared_classes, tmp_path) -> pathlib.Path:
    shutil.copytree(prepared_classes / "prepared", tmp_path / "prepared")
    (tmp_path / "source").symlink_to(prepared_classes / "source")
    return tmp_path


def load(top: pathlib.Path):
    return catalog.load(
        SourceOptions("image_folder", data_dir=str(top / "source"), prepared_dir=str(top / "prepared"))
    )


def read(data) -> None:
    with reading_errors():
        for _ in inference_batches(data.train, TestPreprocessing(16, 18), 4):
            pass


def records(top: pathlib.Path) -> pathlib.Path:
    [file] = (top / "prepared").rglob("*-train.array_record*")
    return file


def overwrite(top: pathlib.Path) -> None:
    content = bytearray(records(top).read_bytes())
    content[100:20_000:100] = b"\x55" * len(content[100:20_000:100])
    records(top).write_bytes(content)


DAMAGES: dict[str, Callable[[pathlib.Path], object]] = {
    "the folder is gone": lambda top: shutil.rmtree(top / "prepared"),
    "the file is gone": lambda top: records(top).unlink(),
    "the file is empty": lambda top: records(top).write_bytes(b""),
    "the file is cut off": lambda top: records(top).write_bytes(records(top).read_bytes()[:66_000]),
    "the file is overwritten": overwrite,
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_damage_during_a_run_is_an_error_of_one_line(top, damage):
    data = load(top)
    DAMAGES[damage](top)
    with pytest.raises(UserError, match=r"damaged or were removed \(.*delete the folder") as error:
        read(data)
    assert str(records(top).parent if "gone" not in damage else top / "prepared") in str(error.value)
    assert "\n" not in str(error.value)


def test_damage_between_runs_is_an_error(top):
    records(top).unlink()
    with pytest.raises(UserError, match="damaged or were removed"):
        read(load(top))
    shutil.rmtree(records_folder := next((top / "prepared").rglob("dataset_info.json")).parent)
    read(load(top))
    (records_folder / "dataset_info.json").write_text("{")
    with pytest.raises(UserError, match="the description of image_folder is damaged"):
        load(top)


def test_the_source_may_be_removed_after_preparation(top, prepared_classes, tmp_path):
    write_classes(tmp_path / "mine", 4)
    data = catalog.load(
        SourceOptions(
            "image_folder", data_dir=str(tmp_path / "mine"), prepared_dir=str(tmp_path / "prepared")
        )
    )
    shutil.rmtree(tmp_path / "mine")
    read(data)


PROGRAM = """
import sys
from ccp_dml.files import preparation_lock
with preparation_lock(sys.argv[1], sys.argv[2]):
    print("inside", flush=True)
"""


def other_process(folder, name):
    return subprocess.Popen(
        [sys.executable, "-c", PROGRAM, str(folder), name],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def test_another_process_waits_for_the_lock_and_prints_that(tmp_path):
    folder = tmp_path / "new"
    with preparation_lock(folder, "birds"):
        process = other_process(folder, "birds")
        assert process.stderr.readline().startswith(
            "Waiting for another process that opens the data set birds"
        )
        with pytest.raises(subprocess.TimeoutExpired):
            process.wait(0.2)
    assert process.communicate(timeout=30) == ("inside\n", "")


def test_the_lock_is_of_one_data_set(tmp_path):
    with preparation_lock(tmp_path, "birds"):
        assert other_process(tmp_path, "cars").communicate(timeout=30) == ("inside\n", "")


def test_a_folder_that_cannot_be_written_to_is_not_locked(tmp_path):
    file = tmp_path / "file"
    file.touch()
    with preparation_lock(file, "birds"):
        assert file.read_bytes() == b""
