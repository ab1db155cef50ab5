"""Damaged files of a run directory: named in one line, and nothing is deleted or silently believed."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from ccp_dml.config import ExperimentConfig
from ccp_dml.config.protocols import resolve
from ccp_dml.errors import UserError
from ccp_dml.run_directory import RunDirectory, State

MARKER = ".ccp_dml_run"
RESULTS = {"test": {"map_at_r": 0.5}, "config": {"max_epochs": 5}}


def _folder(file: Path) -> None:
    file.unlink()
    file.mkdir()


def _dangling(file: Path) -> None:
    file.unlink()
    file.symlink_to(file.with_name("nowhere"))


DAMAGES: dict[str, Callable[[Path], object]] = {
    "missing": Path.unlink,
    "empty": lambda file: file.write_bytes(b""),
    "half": lambda file: file.write_bytes(file.read_bytes()[: file.stat().st_size // 2]),
    "zeros": lambda file: file.write_bytes(bytes(file.stat().st_size)),
    "not text": lambda file: file.write_bytes(b"\xff\xfe" + file.read_bytes()),
    "list": lambda file: file.write_text("[]"),
    "nested": lambda file: file.write_text("[" * 100_000),
    "folder": _folder,
    "dangling link": _dangling,
    "unreadable": lambda file: None,
}


@pytest.fixture
def damaged(monkeypatch):
    """A function that damages a file; an unreadable one stays as it is, but cannot be opened."""

    def damage(file: Path, kind: str) -> None:
        DAMAGES[kind](file)
        opened = Path.open

        def refused(path: Path, *arguments, **keywords):
            if path == file:
                raise PermissionError(13, "Permission denied", str(path))
            return opened(path, *arguments, **keywords)

        if kind == "unreadable":
            monkeypatch.setattr(Path, "open", refused)

    return damage


def config(path: Path, **values) -> ExperimentConfig:
    return resolve(ExperimentConfig()).replace(run_dir=str(path), max_epochs=5, **values)


@pytest.fixture
def unfinished(tmp_path) -> RunDirectory:
    directory = RunDirectory(tmp_path / "run")
    directory.begin(config(directory.path))
    directory.record_data("a" * 64)
    (directory.checkpoints / "step-3").mkdir(parents=True)
    directory.metrics.write_text("epoch\n0\n")
    return directory


def listed(directory: RunDirectory) -> list[str]:
    return sorted(str(path) for path in directory.path.rglob("*"))


@pytest.mark.parametrize("kind", DAMAGES)
@pytest.mark.parametrize(
    "name, expected",
    [
        (MARKER, "no run directory|which only that version can use"),
        (
            "config.cfg",
            r"(config\.cfg cannot be used: |expected config\.cfg in it; found none).*; --overwrite",
        ),
        ("environment.json", r"environment\.json cannot be used: .*; --overwrite begins anew$"),
    ],
)
def test_an_unfinished_run_is_refused_and_kept(unfinished, damaged, name, expected, kind):
    damaged(unfinished.path / name, kind)
    before = listed(unfinished)
    for again in (unfinished.check, unfinished.begin):
        with pytest.raises(UserError, match=expected):
            again(config(unfinished.path))
    with pytest.raises(UserError, match=expected):
        unfinished.begin(config(unfinished.path, seed=7))
    assert listed(unfinished) == before


@pytest.mark.parametrize("kind", DAMAGES)
@pytest.mark.parametrize("name", ["config.cfg", "environment.json", "metrics.csv", "checkpoints"])
@pytest.mark.parametrize("began_with_it", [False, True])
def test_a_damaged_run_can_be_replaced(tmp_path, damaged, monkeypatch, name, kind, began_with_it):
    directory = RunDirectory(tmp_path / "run")
    directory.begin(config(directory.path, overwrite=began_with_it))
    directory.metrics.write_text("epoch\n0\n")
    directory.checkpoints.write_text("a file where a folder should be")
    damaged(directory.path / name, kind)
    is_of_the_beginning = name in ("config.cfg", "environment.json")
    assert directory.begin(config(directory.path, overwrite=True)) is (
        began_with_it and not is_of_the_beginning
    )
    monkeypatch.undo()
    assert directory.read_config() == config(directory.path)


@pytest.mark.parametrize("kind", DAMAGES)
def test_results_that_are_damaged(unfinished, damaged, kind):
    unfinished.finish(RESULTS)
    damaged(unfinished.results, kind)
    with pytest.raises(UserError, match="expected (the results of a run|a finished run)"):
        unfinished.read_results()
    if kind in ("missing", "dangling link"):
        assert unfinished.begin(config(unfinished.path)) is True  # They are written again.
        return
    with pytest.raises(UserError, match=r"results\.json: .*without the file, the command .* writes it again"):
        unfinished.check(config(unfinished.path))


@pytest.mark.parametrize("name", ["config.cfg", "environment.json", "results.json"])
def test_no_flipped_bit_is_believed(unfinished, name):
    """Each flip gives an error, or the very values that were written."""
    unfinished.finish(RESULTS)
    file = unfinished.path / name

    def read() -> object:
        if name == "config.cfg":
            return unfinished.read_config()
        return unfinished.read_results() if name == "results.json" else unfinished._read_environment()

    content, wanted, refused = file.read_bytes(), read(), 0
    places = range(0, len(content), max(1, len(content) // 97))
    for place in places:
        flipped = bytearray(content)
        flipped[place] ^= 1 << place % 7
        file.write_bytes(flipped)
        try:
            assert {**read()} == {**wanted, **read()} if isinstance(wanted, dict) else read() == wanted
        except UserError:
            refused += 1
    assert refused > 0.9 * len(places)


@pytest.mark.parametrize("last", [MARKER, "environment.json"])
def test_a_run_that_was_killed_before_its_flags_were_written_begins_again(tmp_path, last):
    directory = RunDirectory(tmp_path / "run")
    directory.begin(config(directory.path))
    directory.config.unlink()
    if last == MARKER:
        directory.environment.unlink()
    (directory.path / "config.cfg.partial").write_text("--seed=")
    assert directory.begin(config(directory.path, seed=3)) is False
    assert directory.read_config().run.seed == 3


@pytest.mark.parametrize("name", ["results.json", "config.cfg", "environment.json", "saved_model"])
def test_overwriting_that_was_killed_goes_on(unfinished, name):
    """Whatever was deleted already, the same command makes a new run."""
    unfinished.finish(RESULTS)
    order = [unfinished.results, unfinished.saved_model, unfinished.metrics, unfinished.checkpoints]
    for path in [*order, unfinished.config, unfinished.environment]:
        shutil.rmtree(path) if path.is_dir() else path.unlink(missing_ok=True)
        if path.name == name:
            break
    again = config(unfinished.path, overwrite=True)
    assert unfinished.begin(again) is False
    assert not unfinished.checkpoints.exists()
    assert json.loads(unfinished.environment.read_text())["versions"]


def test_a_member_counts_as_work_that_must_not_be_lost(tmp_path):
    group = RunDirectory(tmp_path / "group")
    group.begin(config(group.path))
    member = RunDirectory(group.path / "fold_1" / "repeat_1")
    member.begin(config(member.path))
    group.config.unlink()
    with pytest.raises(UserError, match=r"expected config\.cfg in it; found none; --overwrite begins anew"):
        group.begin(config(group.path))
    assert member.state is State.UNFINISHED


def test_a_larger_number_of_epochs_continues_a_finished_run_and_keeps_its_results(unfinished):
    unfinished.finish(RESULTS)
    for epochs in (4, 5):
        with pytest.raises(UserError, match="it holds a finished run"):
            unfinished.begin(config(unfinished.path).replace(max_epochs=epochs))
    longer = config(unfinished.path).replace(max_epochs=9)
    with pytest.raises(UserError, match="--seed=7: the finished run in .* has 0"):
        unfinished.begin(longer.replace(seed=7))
    for _ in range(2):  # The second time after an interruption.
        assert unfinished.holds_finished(longer) is False
        assert unfinished.begin(longer) is True
        assert unfinished.read_results() == RESULTS
        assert (unfinished.checkpoints / "step-3").exists()
    with pytest.raises(UserError, match="--max_epochs=7: the finished run in .* has 9"):
        unfinished.begin(longer.replace(max_epochs=7))
    unfinished.finish({"config": {"max_epochs": 9}})
    assert unfinished.holds_finished(longer) is True
