from __future__ import annotations

import subprocess
import sys

import pytest

from ccp_dml.data.catalog import preparation_lock

PROGRAM = """
import sys
from ccp_dml.data.catalog import preparation_lock
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


def test_another_process_waits_and_says_so(tmp_path):
    folder = tmp_path / "new"
    with preparation_lock(folder, "birds"):
        process = other_process(folder, "birds")
        assert process.stderr.readline().startswith(
            "Waiting for another process that opens the data set birds"
        )
        with pytest.raises(subprocess.TimeoutExpired):
            process.wait(0.2)
    assert process.communicate(timeout=30) == ("inside\n", "")


def test_other_data_sets_do_not_wait(tmp_path):
    with preparation_lock(tmp_path, "birds"):
        assert other_process(tmp_path, "cars").communicate(timeout=30) == ("inside\n", "")


def test_a_folder_that_cannot_be_written_to_is_not_locked(tmp_path):
    file = tmp_path / "file"
    file.touch()
    with preparation_lock(file, "birds"):
        assert file.read_bytes() == b""
