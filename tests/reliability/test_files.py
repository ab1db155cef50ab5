from __future__ import annotations

import os

import pytest

from ccp_dml import durable, faults


@pytest.fixture
def calls(monkeypatch) -> list[str]:
    """Names of what is asked of the operating system, in order."""
    made: list[str] = []
    for name in ("fsync", "replace"):
        function = getattr(os, name)

        def noted(*arguments, name=name, function=function):
            made.append(name)
            return function(*arguments)

        monkeypatch.setattr(os, name, noted)
    return made


def test_a_file_is_on_the_disk_before_it_has_its_name_and_so_is_the_name(tmp_path, calls):
    durable.write_text(tmp_path / "a.csv", "ä\r\n")
    assert (tmp_path / "a.csv").read_bytes() == "ä\r\n".encode()
    assert calls == ["fsync", "replace", "fsync"]


def test_a_write_that_fails_leaves_the_file_as_it_was(tmp_path, monkeypatch):
    durable.write_text(tmp_path / "metrics.csv", "before")
    monkeypatch.setenv(faults.VARIABLE, "metrics.csv:1:ENOSPC")
    with pytest.raises(OSError, match="No space left"):
        durable.write_text(tmp_path / "metrics.csv", "after")
    assert (tmp_path / "metrics.csv").read_text() == "before"


def test_every_file_of_a_folder_reaches_the_disk(tmp_path, calls):
    (tmp_path / "variables").mkdir()
    for name in ("saved_model.pb", "variables/data", "variables/index"):
        (tmp_path / name).touch()
    durable.to_disk(tmp_path)
    assert calls == ["fsync"] * 5
