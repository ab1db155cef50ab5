from __future__ import annotations

import pathlib
from types import SimpleNamespace

import numpy as np
import pytest

from ccp_dml.data import prepared


class FakeSource:
    """As many records as TFDS would give, in an order of its own."""

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
    """What this library uses of a TFDS builder."""

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


def test_labels_are_read_once(tmp_path: pathlib.Path) -> None:
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


def test_a_read_only_folder_is_no_obstacle(tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise PermissionError("read-only")

    monkeypatch.setattr(prepared.tempfile, "mkstemp", refuse)
    builder = build(tmp_path, train=FakeSource([0, 1], [0, 1]), test=FakeSource([2], [2]))
    assert len(prepared.load_prepared("fake", builder).train) == 2


def test_missing_and_empty_splits(tmp_path: pathlib.Path) -> None:
    train = FakeSource([0], [0])
    with pytest.raises(ValueError, match="split 'test' has no images; found train"):
        prepared.load_prepared("fake", build(tmp_path, train=train))
    with pytest.raises(ValueError, match="split 'train' has no images"):
        prepared.load_prepared("fake", build(tmp_path, train=FakeSource([], []), test=train))


def test_default_folder(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TFDS_DATA_DIR", "/prepared")
    assert prepared.default_prepared_dir() == "/prepared"
    monkeypatch.delenv("TFDS_DATA_DIR")
    monkeypatch.setenv("XDG_CACHE_HOME", "/cache")
    assert prepared.default_prepared_dir() == "/cache/ccp_dml"
