"""Ctrl-C and SIGTERM at any moment: one line of explanation, and the continued run has the same result."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import pytest

import train
from ccp_dml import commands
from ccp_dml.datasets.common import images
from ccp_dml.run_directory import RunDirectory, State
from tests.data.image_folder import SMALL_RUN, write_classes
from tests.reliability.killed_runs import RunServer, assert_same

# Beginnings of the message: during training, a run first goes on to a safe point and saves.
AT_ONCE = "stopped by {signal}; the same flags with --run_dir="
SAVED = "after step {step}, saved; the same flags with --run_dir="
# Places where the run is interrupted, one after the other, the message, and the step that is saved.
PLACES = (
    ("tracing", AT_ONCE, None),
    ("reset", SAVED, 1),
    ("validation", SAVED, 2),
    ("metrics.csv", SAVED, 4),
    ("weights", AT_ONCE, None),
    ("export_replace", AT_ONCE, None),
    ("results.json", AT_ONCE, None),
)


@pytest.fixture
def interruptible():
    """Lets Ctrl-C work as in a terminal; processes that a shell starts in the background ignore it."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.fixture
def flags(tmp_path) -> tuple[str, ...]:
    return (
        *SMALL_RUN,
        f"--data_dir={write_classes(tmp_path / 'source', 10)}",
        f"--prepared_dir={tmp_path / 'prepared'}",
        "--validation_fraction=0.4",
        "--steps_per_epoch=2",
        "--max_epochs=2",
        "--chunk_size=1",
        "--ccp_reset_rule=patience",
        "--ccp_patience=1",
        "--recall_at=1",
    )


def outcome(path: Path, *flags: str) -> int:
    return commands.run(lambda: train.main([*flags, f"--run_dir={path}"]))


@pytest.mark.usefixtures("interruptible")
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_an_interruption_during_preparation_leaves_no_run_directory(
    flags, tmp_path, monkeypatch, capsys, record_property, number
):
    convert, calls = images._convert, []

    def interrupt(*arguments):
        calls.append(arguments)
        if len(calls) == 5:
            os.kill(os.getpid(), number)
        return convert(*arguments)

    with monkeypatch.context() as patch:
        patch.setattr(images, "_convert", interrupt)
        assert outcome(tmp_path / "run", *flags) == commands.INTERRUPTED
    *_, line = capsys.readouterr().err.splitlines()
    name = "Ctrl-C" if number == signal.SIGINT else "SIGTERM"
    assert line == f"interrupted: stopped by {name}"
    assert not (tmp_path / "run").exists()
    assert outcome(tmp_path / "run", *flags, "--max_epochs=0") == 0
    record_property("interruptions", 1)


@pytest.mark.slow
def test_an_interrupted_run_continues_to_the_same_result(flags, tmp_path, capfd, record_property):
    whole, interrupted = RunDirectory(tmp_path / "whole"), RunDirectory(tmp_path / "interrupted")
    with RunServer() as server:
        assert server.run([*flags, f"--run_dir={whole.path}"]) == 0
        for index, (place, expected, step) in enumerate(PLACES):
            name, shown = ("SIGINT", "Ctrl-C") if index % 2 else ("SIGTERM", "SIGTERM")
            capfd.readouterr()
            fault = f"{place}:1:{name}"
            code = server.run([*flags, f"--run_dir={interrupted.path}"], fault)
            *_, line = capfd.readouterr().err.splitlines()
            assert code == commands.INTERRUPTED, line
            assert line.startswith("interrupted: " + expected.format(signal=shown, step=step)), place
            assert interrupted.state is State.UNFINISHED
        assert server.run([*flags, f"--run_dir={interrupted.path}"]) == 0
    assert_same(interrupted, whole)
    record_property("interruptions", len(PLACES))
