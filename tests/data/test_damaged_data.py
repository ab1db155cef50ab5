"""Prepared data that are removed or damaged, before or while they are read: one message, no other images."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from ccp_dml.data import catalog
from ccp_dml.data.catalog import Source
from ccp_dml.data.images import TestPreprocessing
from ccp_dml.data.pipeline import inference_batches, reading_errors
from ccp_dml.errors import UserError
from tests.image_folder import write_classes


@pytest.fixture(scope="module")
def prepared(tmp_path_factory) -> Path:
    """A folder with images in `source` and what is prepared of them in `prepared`."""
    top = tmp_path_factory.mktemp("data")
    write_classes(top / "source", 4)
    load(top)
    return top


@pytest.fixture
def top(prepared, tmp_path) -> Path:
    shutil.copytree(prepared / "prepared", tmp_path / "prepared")
    (tmp_path / "source").symlink_to(prepared / "source")
    return tmp_path


def load(top: Path):
    return catalog.load(
        Source("image_folder", data_dir=str(top / "source"), prepared_dir=str(top / "prepared"))
    )


def read(data) -> None:
    with reading_errors():
        for _ in inference_batches(data.train, TestPreprocessing(16, 18), 4):
            pass


def records(top: Path) -> Path:
    [file] = (top / "prepared").rglob("*-train.array_record*")
    return file


def overwrite(top: Path) -> None:
    content = bytearray(records(top).read_bytes())
    content[100:20_000:100] = b"\x55" * len(content[100:20_000:100])
    records(top).write_bytes(content)


DAMAGES: dict[str, Callable[[Path], object]] = {
    "the folder is gone": lambda top: shutil.rmtree(top / "prepared"),
    "the file is gone": lambda top: records(top).unlink(),
    "the file is empty": lambda top: records(top).write_bytes(b""),
    "the file is cut off": lambda top: records(top).write_bytes(records(top).read_bytes()[:66_000]),
    "the file is overwritten": overwrite,
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_damage_while_a_run_reads(top, damage):
    data = load(top)
    DAMAGES[damage](top)
    with pytest.raises(UserError, match=r"damaged or were removed \(.*delete the folder") as error:
        read(data)
    assert str(records(top).parent if "gone" not in damage else top / "prepared") in str(error.value)
    assert "\n" not in str(error.value)


def test_damage_between_runs(top):
    records(top).unlink()
    with pytest.raises(UserError, match="damaged or were removed"):
        read(load(top))
    shutil.rmtree(records_folder := next((top / "prepared").rglob("dataset_info.json")).parent)
    read(load(top))
    (records_folder / "dataset_info.json").write_text("{")
    with pytest.raises(UserError, match="the description of image_folder is damaged"):
        load(top)


def test_the_source_may_go_once_it_is_prepared(top, prepared, tmp_path):
    write_classes(tmp_path / "mine", 4)
    data = catalog.load(
        Source("image_folder", data_dir=str(tmp_path / "mine"), prepared_dir=str(tmp_path / "prepared"))
    )
    shutil.rmtree(tmp_path / "mine")
    read(data)
