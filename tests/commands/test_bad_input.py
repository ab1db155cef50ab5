"""Flags and data that do not fit: one line, exit code 2, and nothing is written or deleted."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

import train
from ccp_dml import commands, evaluate
from ccp_dml.config import ExperimentConfig
from ccp_dml.config.protocols import resolve
from ccp_dml.run_directory import RunDirectory
from tests.data.image_folder import SMALL_RUN, write_classes

HEADER = b"file,label,split\n"
ROWS = b"".join(
    b"class %02d/%d.png,c%d,%s\n" % (label, index, label, b"train" if label < 4 else b"test")
    for label in range(6)
    for index in range(3)
)


@pytest.fixture(scope="module")
def source(tmp_path_factory) -> Path:
    return write_classes(tmp_path_factory.mktemp("source"), 12)


@pytest.fixture
def data(source, tmp_path) -> Path:
    """A folder of 12 classes that a test may damage."""
    return Path(shutil.copytree(source, tmp_path / "data"))


@pytest.fixture
def complain(data, tmp_path, capsys):
    """Runs train.py on the folder; returns its last line, after a check that nothing was changed."""

    def run(*arguments: str) -> str:
        before = files(tmp_path)
        flags = (*SMALL_RUN, f"--data_dir={data}", f"--run_dir={tmp_path / 'run'}", *arguments)
        assert commands.run(lambda: train.main(flags)) == commands.BAD_INPUT
        captured = capsys.readouterr()
        assert captured.out == ""
        *earlier, line = captured.err.splitlines()
        assert all(text.startswith("Preparing the data set") for text in earlier)
        assert line.startswith("error: ")
        assert files(tmp_path) == before
        return line

    return run


def files(folder: Path) -> dict[str, bytes]:
    """All files below a folder, without the prepared data."""
    return {
        str(path): path.read_bytes()
        for path in folder.rglob("*")
        if path.is_file() and "prepared" not in path.relative_to(folder).parts
    }


@pytest.mark.parametrize(
    "arguments, expected",
    [
        (["--dataset=birds"], "--dataset=birds is unknown, expected one of: emoji, image_folder"),
        (["--loss=tripet"], "--loss=tripet: 'tripet'"),
        (["--loss=ccp/proxy_nca"], "--loss=ccp/proxy_nca: "),
        (["--backbone=resnet18"], "--backbone=resnet18: backbone 'resnet18' is unknown; expected one of"),
        (["--backbone_weights=imagenet"], "--backbone_weights=imagenet: backbone 'cifar_resnet' has no"),
        (
            ["--temperature=2"],
            "--temperature=2: --temperature is not an option of --loss=ccp/contrastive; remove it",
        ),
        (["--monitor=recall_at_3"], "--monitor=recall_at_3: expected 3 to be listed in --recall_at"),
        (["--loss=ccp/multi_similarity", "--proxy_anchor"], "--loss=ccp/multi_similarity: proxy_anchor"),
        (["--classes_per_batch=5"], "--classes_per_batch=5: expected at most 4, the number of classes to"),
        (["--validation_fraction=0.9"], "--classes_per_batch=3: expected at most 1"),
        (["--validation_fraction=0.1"], "--validation_fraction=0.1: holds out one of the 6 training classes"),
        (["--fold=1", "--num_folds=6"], "--num_folds=6 --fold=1: holds out one of the 6 training classes"),
        (["--fold=1", "--num_folds=9"], "--num_folds=9 --fold=1: the number of folds must be between 1 and"),
        (["--dataset=emoji", "--classes_per_batch=243"], "--classes_per_batch=243: expected at most 242"),
    ],
)
def test_flags_that_do_not_fit_the_data(complain, arguments, expected):
    assert complain(*arguments).startswith(f"error: {expected}")


@pytest.mark.parametrize(
    "damage, expected",
    [
        (lambda data: shutil.rmtree(data), "is not a folder; expected the folder with the images"),
        (
            lambda data: [file.unlink() for file in sorted((data / "class 03").iterdir())[1:]],
            "'class 03' has",
        ),
        (lambda data: (data / "class 99").mkdir(), "class 99 holds no image"),
        (lambda data: (data / "class 01" / "more").mkdir(), "class 01 holds the folder 'more'"),
        (lambda data: [shutil.rmtree(path) for path in sorted(data.iterdir())[1:]], "1 class folder(s)"),
        (lambda data: [shutil.rmtree(path) for path in data.iterdir()], "holds no folders"),
    ],
)
def test_folders_that_cannot_be_used(data, complain, damage, expected):
    damage(data)
    line = complain()
    assert str(data) in line
    assert expected in line


@pytest.mark.parametrize(
    "manifest, expected",
    [
        (b"", "has the columns none; expected file, label, split once each"),
        (HEADER, "lists no images"),
        (HEADER.replace(b",", b";") + ROWS, "has the columns file;label;split"),
        (
            HEADER + ROWS.replace(b"test", b"val"),
            "line 14: unknown split 'val'; expected train, validation",
        ),
        (HEADER + ROWS.replace(b"test", b"query"), "has the split(s) train, query; expected train and test"),
        (HEADER + ROWS + b"../a.png,c0,train\n", "line 20: '../a.png' is not below"),
        (HEADER + ROWS + b"class 00/0.png,c0,train\n", "line 20: 'class 00/0.png' is already on line 2"),
        (HEADER + ROWS + b"class 07/0.png\n", "line 20: the label is missing"),
        (HEADER + ROWS + b"class 07/0.png,c7,train\n", "class 'c7' has one image in train"),
        (HEADER + ROWS + b'"class 07/0.png,c7,train\n', "line 20: not valid CSV"),
        (HEADER + ROWS + b"\xe4.png,c7,train\n", "is not text in UTF-8"),
    ],
)
def test_manifests_that_cannot_be_used(data, complain, manifest, expected):
    (data / "manifest.csv").write_bytes(manifest)
    line = complain("--classes_per_batch=2", "--validation_fraction=0.5")
    assert f"{data / 'manifest.csv'}" in line
    assert expected in line


def test_test_images_of_a_single_class(data, complain):
    (data / "manifest.csv").write_bytes(HEADER + ROWS.replace(b"c5,test", b"c5,train"))
    assert complain("--validation_fraction=0.5") == (
        "error: --dataset=image_folder: the images to be found in the test are of one class, 'c4', "
        "within which every neighbour is right; expected at least two classes"
    )


def test_images_that_cannot_be_read(data, complain, tmp_path):
    truncated, empty = data / "class 02" / "1.png", data / "class 08" / "0.png"
    truncated.write_bytes(truncated.read_bytes()[:1000])
    empty.write_bytes(b"")
    line = complain(f"--prepared_dir={tmp_path / 'prepared'}")
    assert line.startswith(f"error: 2 images cannot be used: {truncated}: the image is truncated")
    assert line.endswith(f"; {empty}: the file is empty; --skip_bad_images leaves them out")


def test_a_prepared_dir_that_cannot_be_written_to(complain, source):
    file = source / "class 00" / "0.png"
    assert (
        complain(f"--prepared_dir={file}") == f"error: --prepared_dir={file}: cannot be used: Not a directory"
    )


@pytest.mark.parametrize("overwrite", [[], ["--overwrite"]])
def test_a_folder_that_is_not_a_run(complain, tmp_path, overwrite):
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "results.json").write_text("a note")
    assert "is no run directory" in complain(*overwrite)


def finished_run(path: Path) -> RunDirectory:
    directory = RunDirectory(path)
    directory.begin(resolve(ExperimentConfig()).replace(run_dir=str(path)))
    directory.finish({"test": {}})
    return directory


def test_a_finished_run_is_not_repeated(complain, tmp_path):
    finished_run(tmp_path / "run")
    assert complain().endswith("it holds a finished run; expected another folder, or --overwrite")


def test_a_damaged_run_is_not_evaluated(tmp_path, capsys):
    def complaint() -> str:
        assert commands.run(lambda: evaluate.main([f"--run_dir={tmp_path}"])) == commands.BAD_INPUT
        return capsys.readouterr().err

    directory = finished_run(tmp_path)
    directory.config.unlink()
    assert complaint() == f"error: --run_dir={tmp_path}: expected config.cfg in it; found none\n"
    directory.results.write_text("{")
    assert complaint().startswith(f"error: {directory.results}: expected the results of a run: ")
