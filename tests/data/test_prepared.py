"""Prepared data: reading, the index beside it, damage, and the lock of the preparation."""

from __future__ import annotations

import contextlib
import os
import pathlib
import shutil
import subprocess
import sys
import threading
from collections.abc import Callable
from types import SimpleNamespace

import pytest

from ccp_dml import files
from ccp_dml.data import catalog, prepared
from ccp_dml.data.collection import ImageDataset
from ccp_dml.data.images import TestPreprocessing
from ccp_dml.data.options import SourceOptions
from ccp_dml.data.pipeline import InferenceBatches, reading_errors
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


NAMES = ["a", "b", "c", "d"]


def open_fake(folder: pathlib.Path, **sources: FakeSource) -> ImageDataset:
    builder = FakeBuilder(folder, sources, NAMES)
    prepared.write_index("fake", builder)
    return prepared.open_prepared("fake", builder, NAMES)


def test_images_are_in_the_order_of_their_ids(tmp_path: pathlib.Path) -> None:
    data = open_fake(tmp_path, train=FakeSource([1, 3, 1], [7, 5, 6]), test=FakeSource([2, 0], [9, 8]))
    assert data.train.image_ids.tolist() == [5, 6, 7]
    assert data.train.labels.tolist() == [1, 0, 0]
    assert data.train.class_names == ("b", "d")
    assert data.train.encoded([2, 0]) == [b"7", b"5"]
    assert data.test.class_names == ("a", "c")
    assert data.test.encoded([0, 1]) == [b"8", b"9"]


def test_records_are_read_once_for_the_index_of_labels_and_ids(tmp_path: pathlib.Path) -> None:
    sources = {"train": FakeSource([0, 0, 1, 1], [0, 1, 2, 3]), "test": FakeSource([2, 2], [4, 5])}
    open_fake(tmp_path, **sources)
    data = prepared.open_prepared("fake", FakeBuilder(tmp_path, sources, NAMES), NAMES)
    assert (data.train.labels.tolist(), sources["train"].reads) == ([0, 0, 1, 1], 4)
    found = sorted(file.name for file in tmp_path.iterdir())
    assert found == ["class_names.json", "index-test.npy", "index-train.npy"]


def test_missing_and_empty_splits_are_refused(tmp_path: pathlib.Path) -> None:
    train = FakeSource([0], [0])
    with pytest.raises(ValueError, match="split 'test' has no images; found train, other"):
        open_fake(tmp_path, train=train, other=train)
    with pytest.raises(ValueError, match="split 'train' has no images"):
        open_fake(tmp_path, train=FakeSource([], []), test=train)


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
        for _ in InferenceBatches(data.train, TestPreprocessing(16, 18), 4).of():
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


def flip_a_bit(file: pathlib.Path) -> None:
    content = bytearray(file.read_bytes())
    content[len(content) // 2] ^= 4
    file.write_bytes(content)


def replace_by_folder(file: pathlib.Path) -> None:
    file.unlink()
    file.mkdir()


def replace_by_link(file: pathlib.Path) -> None:
    file.unlink()
    file.symlink_to("nowhere")


def replace_by_pipe(file: pathlib.Path) -> None:
    file.unlink()
    os.mkfifo(file)


DAMAGES_OF_FILES: dict[str, Callable[[pathlib.Path], object]] = {
    "missing": pathlib.Path.unlink,
    "empty": lambda file: file.write_bytes(b""),
    "half": lambda file: file.write_bytes(file.read_bytes()[: file.stat().st_size // 2]),
    "zeros": lambda file: file.write_bytes(bytes(file.stat().st_size)),
    "one bit": flip_a_bit,
    "longer": lambda file: file.write_bytes(file.read_bytes() + b"\n"),
    "folder": replace_by_folder,
    "link": replace_by_link,
    "pipe": replace_by_pipe,
}


@pytest.mark.parametrize("damage", DAMAGES_OF_FILES)
def test_damage_of_any_file_is_an_error_of_one_line(top, damage):
    folder = records(top).parent
    names = sorted(path.name for path in folder.iterdir())
    assert {"checksums.json", "class_names.json", "index-test.npy", "index-train.npy"} < set(names)
    for name in names:
        kept = folder.with_name("kept")
        (folder / name).rename(kept)
        shutil.copyfile(kept, folder / name)
        DAMAGES_OF_FILES[damage](folder / name)
        with pytest.raises(UserError) as error:
            load(top)
        message = str(error.value)
        assert message.startswith(f"{folder}: the prepared data are damaged or were removed ({name}: ")
        assert message.endswith("delete the folder, and they are prepared again")
        assert "\n" not in message
        shutil.rmtree(folder / name) if (folder / name).is_dir() else (folder / name).unlink(missing_ok=True)
        kept.rename(folder / name)
    load(top)


@pytest.mark.parametrize("name", ["dataset_info.json", "features.json", "checksums.json"])
def test_no_bit_of_a_description_may_change(top, name):
    file = records(top).parent / name
    content = file.read_bytes()
    for place in range(0, len(content), 7):
        file.write_bytes(content[:place] + bytes([content[place] ^ 1 << place % 8]) + content[place + 1 :])
        with pytest.raises(UserError, match="damaged or were removed"):
            prepared.check_files(file.parent)


def test_large_files_are_compared_when_they_are_read(top, monkeypatch):
    monkeypatch.setattr(prepared, "_LARGEST_HASHED_FILE", 10_000)
    shutil.rmtree(records(top).parent)
    data = load(top)
    file, whole = records(top), [data.train.encoded([row]) for row in range(len(data.train))]
    content = file.read_bytes()
    for place in range(0, len(content), len(content) // 100):
        file.write_bytes(content[:place] + bytes([content[place] ^ 16]) + content[place + 1 :])
        with contextlib.suppress(UserError):
            data = load(top)
            assert [data.train.encoded([row]) for row in range(len(data.train))] == whole
    file.write_bytes(content[:-1])
    with pytest.raises(UserError, match="damaged or were removed"):
        load(top)


def test_a_folder_that_was_replaced_is_an_error(top):
    folder = records(top).parent
    for replace in (replace_by_link, lambda file: file.write_bytes(b"")):
        folder.rename(folder.with_name("kept"))
        folder.touch()
        replace(folder)
        with pytest.raises(UserError, match=r"damaged or were removed \(checksums\.json"):
            load(top)
        folder.unlink()
        folder.with_name("kept").rename(folder)


def test_opening_writes_nothing(top):
    def state() -> dict[pathlib.Path, int]:
        return {path: path.stat().st_mtime_ns for path in (top / "prepared").rglob("*") if path.is_file()}

    load(top)  # Makes the lock.
    before = state()
    load(top)
    assert {path: time for path, time in state().items() if path.suffix != ".lock"} == {
        path: time for path, time in before.items() if path.suffix != ".lock"
    }


def test_files_are_on_the_disk_before_the_folder_gets_its_name(top, monkeypatch):
    folder = records(top).parent
    shutil.rmtree(folder)
    synced: list[str] = []
    original = files._sync

    def sync(path: pathlib.Path) -> None:
        assert not folder.exists() or path == folder.parent
        synced.append(path.name)
        original(path)

    monkeypatch.setattr(files, "_sync", sync)
    load(top)
    assert {path.name for path in folder.iterdir()} < set(synced)


def test_the_source_may_be_removed_after_preparation(top, prepared_classes, tmp_path):
    write_classes(tmp_path / "mine", 4)
    data = catalog.load(
        SourceOptions(
            "image_folder", data_dir=str(tmp_path / "mine"), prepared_dir=str(tmp_path / "prepared")
        )
    )
    shutil.rmtree(tmp_path / "mine")
    read(data)


LIMITED = """
import resource, sys
from ccp_dml.data import prepared
used = int(open("/proc/self/statm").read().split()[0]) * resource.getpagesize()
resource.setrlimit(resource.RLIMIT_AS, (used + int(sys.argv[1]) * 2**20,) * 2)
try:
    prepared._check_threads()
except prepared.UserError as error:
    print(error)
"""


@pytest.mark.parametrize("megabytes", [50, 300, 500, 10_000])
def test_too_little_address_space_for_the_threads_of_a_reader_is_an_error(megabytes):
    command = [sys.executable, "-c", LIMITED, str(megabytes)]
    found = subprocess.run(command, capture_output=True, text=True, timeout=60, check=True).stdout
    assert found.count("\n") == (megabytes < 1000)
    assert ("cannot be started" in found and "ulimit -v" in found) == (megabytes < 1000)


@pytest.mark.parametrize("number", [0, 1, 63])
def test_too_few_threads_for_a_reader_are_an_error(top, monkeypatch, number):
    start, left = threading.Thread.start, [number]

    def limited(thread: threading.Thread) -> None:
        if thread._target is not None and not left[0]:
            raise RuntimeError("can't start new thread")
        left[0] -= 1
        start(thread)

    prepared._check_threads.cache_clear()
    before = threading.active_count()
    with monkeypatch.context() as patch:
        patch.setattr(threading.Thread, "start", limited)
        with pytest.raises(UserError, match="can't start new thread"):
            load(top)
    assert threading.active_count() == before
    load(top)


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
