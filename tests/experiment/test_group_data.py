"""Groups of runs on one data set: changed data are refused, and two processes do not meet in a folder."""

from __future__ import annotations

import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest

import train
from ccp_dml import commands, evaluate, export
from ccp_dml.experiment import single
from ccp_dml.run_directory import RunDirectory, State
from tests import ROOT
from tests.data.image_folder import write_classes, write_image
from tests.experiment import tiny_backbone

# The last six of twelve classes are for the test; fold 1 validates on the last three of the others.
CLASSES, TEST_CLASSES = 12, range(6, 12)


@pytest.fixture(scope="module", autouse=True)
def backbone() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as monkeypatch:
        tiny_backbone.register(monkeypatch)
        yield


@pytest.fixture(scope="module")
def root(tmp_path_factory) -> Path:
    root = tmp_path_factory.mktemp("group")
    write_classes(root / "source", CLASSES)
    return root


@pytest.fixture(scope="module")
def flags(root) -> list[str]:
    return [
        "--dataset=image_folder",
        f"--data_dir={root / 'source'}",
        f"--prepared_dir={root / 'prepared'}",
        "--backbone=tiny",
        "--embedding_size=4",
        "--classes_per_batch=3",
        "--samples_per_class=2",
        "--loss=contrastive",
        "--num_folds=2",
        "--fold=all",
        "--max_epochs=0",
        "--notensorboard",
    ]


@pytest.fixture(scope="module")
def interrupted(root, flags) -> RunDirectory:
    """A group that was killed at "run 2 of 2"."""
    directory, train_run = RunDirectory(root / "interrupted"), single.train

    def train_first(config, group):
        if config.split.fold == 2:
            raise KeyboardInterrupt
        return train_run(config, group)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(single, "train", train_first)
        assert outcome(train.main, *flags, f"--run_dir={directory.path}") == commands.INTERRUPTED
    return directory


@pytest.fixture(scope="module")
def finished(root, flags) -> RunDirectory:
    directory = RunDirectory(root / "finished")
    assert outcome(train.main, *flags, f"--run_dir={directory.path}") == 0
    return directory


def outcome(main, *arguments: str) -> int:
    return commands.run(lambda: main(arguments))


def last_line(capsys) -> str:
    return capsys.readouterr().err.splitlines()[-1]


def overwrite_test_images(source: Path) -> None:
    for number in range(12):
        label, index = TEST_CLASSES[number // 3], number % 3
        write_image(source / f"class {label:02d}" / f"{index}.png", (10, 10, 10), seed=number)


def overwrite_a_training_image(source: Path) -> None:
    write_image(source / "class 01" / "2.png", (10, 10, 10))


def exchange_labels(source: Path) -> None:
    one, other = source / "class 07" / "0.png", source / "class 08" / "0.png"
    content = one.read_bytes()
    one.write_bytes(other.read_bytes())
    other.write_bytes(content)


@pytest.fixture(params=[overwrite_test_images, overwrite_a_training_image, exchange_labels])
def changed_data(request, interrupted, finished, root) -> Iterator[Callable[[Path], None]]:
    """Another content of the folder of images, after the groups; the former one returns at the end."""
    shutil.copytree(root / "source", root / "kept")
    request.param(root / "source")
    yield request.param
    shutil.rmtree(root / "source")
    (root / "kept").rename(root / "source")


def test_a_group_is_not_continued_or_scored_on_changed_data(
    changed_data, interrupted, finished, flags, tmp_path, capsys
):
    for main, directory, arguments in (
        (train.main, interrupted, flags),
        (evaluate.main, finished, []),
        (evaluate.main, RunDirectory(finished.path / "fold_1" / "repeat_1"), []),
        (export.main, finished, [f"--output={tmp_path / 'model'}", "--pca_dim=2"]),
    ):
        assert outcome(main, *arguments, f"--run_dir={directory.path}") == commands.BAD_INPUT
        assert "the data set has changed since the run began" in last_line(capsys)
    assert interrupted.state is State.UNFINISHED
    assert not list(interrupted.path.glob("fold_2/*/checkpoints"))


def test_changed_data_are_scored_if_they_are_named(changed_data, finished, root, tmp_path, capsys):
    other = shutil.copytree(root / "source", tmp_path / "other")
    assert outcome(evaluate.main, f"--run_dir={finished.path}", f"--data_dir={other}") == 0


def test_data_that_change_while_the_group_runs(flags, root, tmp_path, monkeypatch, capsys):
    """Between two runs of one process."""
    source, train_run = shutil.copytree(root / "source", tmp_path / "source"), single.train

    def train_and_change(config, group):
        if config.split.fold == 2:
            overwrite_test_images(source)
        return train_run(config, group)

    monkeypatch.setattr(single, "train", train_and_change)
    command = [*flags, f"--data_dir={source}", f"--run_dir={tmp_path / 'run'}"]
    assert outcome(train.main, *command) == commands.BAD_INPUT
    assert "the data set has changed since the run began" in last_line(capsys)


@pytest.mark.parametrize(
    "damage", ["flipped", *(pytest.param(name, marks=pytest.mark.slow) for name in ("cut", "removed"))]
)
def test_the_report_reads_no_damaged_embeddings(interrupted, flags, tmp_path, capsys, damage):
    group = RunDirectory(shutil.copytree(interrupted.path, tmp_path / "group"))
    file = RunDirectory(group.path / "fold_1" / "repeat_1").embeddings("test")
    content = bytearray(file.read_bytes())
    if damage == "removed":
        file.unlink()
    elif damage == "cut":
        file.write_bytes(content[:-8])
    else:
        content[-2] ^= 1
        file.write_bytes(content)
    assert outcome(train.main, *flags, f"--run_dir={group.path}") == commands.BAD_INPUT
    assert last_line(capsys).startswith(f"error: {file}: expected the embeddings of this run: ")
    if damage != "flipped":
        return
    # The advice of the message helps.
    RunDirectory(file.parent).results.unlink()
    assert outcome(train.main, *flags, f"--run_dir={group.path}") == 0
    assert np.isfinite(np.load(file)).all()


HOLDER = """
import sys
from ccp_dml.run_directory import RunDirectory
with RunDirectory(sys.argv[1]).locked():
    print("locked", flush=True)
    sys.stdin.read()
"""


@pytest.mark.parametrize(
    "first, second, is_refused",
    [
        ("", "", True),
        ("", "fold_1/repeat_1", True),
        ("fold_1/repeat_1", "", True),
        ("fold_1/repeat_1", "fold_1/repeat_1", True),
        ("fold_1/repeat_1", "fold_2/repeat_1", False),
        ("notes", "fold_1/repeat_1", False),
    ],
)
def test_two_processes_in_a_group(interrupted, first, second, is_refused):
    command = [sys.executable, "-c", HOLDER, str(interrupted.path / first)]
    with subprocess.Popen(command, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as holder:
        assert holder.stdout.readline() == b"locked\n"
        done = subprocess.run(
            [sys.executable, "-c", HOLDER, str(interrupted.path / second)],
            cwd=ROOT,
            input=b"",
            capture_output=True,
            check=False,
        )
        holder.stdin.close()
    assert (done.stdout == b"locked\n") is not is_refused
    assert (b"is working in it; expected another folder" in done.stderr) is is_refused


def test_a_link_to_a_run_of_a_group_is_the_run(interrupted, tmp_path):
    link = tmp_path / "link"
    link.symlink_to(interrupted.path / "fold_1" / "repeat_1")
    with (
        interrupted.locked(),
        pytest.raises(Exception, match="is working in it"),
        RunDirectory(link).locked(),
    ):
        pass
