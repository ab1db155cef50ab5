"""A run from images to a SavedModel: interrupted, continued, evaluated, exported and replaced."""

from __future__ import annotations

import csv
import json
import os
import signal
from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf
from PIL import Image

import train
from ccp_dml import commands, evaluate, export
from ccp_dml.evaluation.report import format_table
from ccp_dml.monitoring.console import MetricsCsv
from ccp_dml.run_directory import RunDirectory, State
from tests.data.image_folder import SMALL_RUN, write_classes, write_manifest
from tests.reliability.killed_runs import assert_same

_QUERY_CLASSES = (6, 7, 8)


@pytest.fixture(scope="module")
def data(tmp_path_factory) -> Path:
    """Six classes to train and validate on, queries of three others, a gallery with another class."""
    folder = write_classes(tmp_path_factory.mktemp("data"), 10)
    splits = {label: ["train"] * 3 for label in range(6)}
    splits |= {label: ["query", "gallery", "gallery"] for label in _QUERY_CLASSES}
    splits[9] = ["gallery"] * 3
    write_manifest(
        folder,
        [
            (f"class {label:02d}/{index}.png", f"the class {label}", split)
            for label, of_class in splits.items()
            for index, split in enumerate(of_class)
        ],
    )
    return folder


@pytest.fixture(scope="module")
def flags(data, tmp_path_factory) -> list[str]:
    prepared = tmp_path_factory.mktemp("prepared")
    return [
        *SMALL_RUN,
        f"--data_dir={data}",
        f"--prepared_dir={prepared}",
        "--validation_fraction=0.34",
        "--steps_per_epoch=2",
        "--max_epochs=2",
        "--chunk_size=1",
        "--ccp_reset_rule=patience",
        "--ccp_patience=1",
        "--recall_at=1,2",
    ]


def outcome(main, *arguments: str) -> int:
    return commands.run(lambda: main(arguments))


@pytest.fixture(scope="module")
def finished(flags, tmp_path_factory) -> RunDirectory:
    directory = RunDirectory(tmp_path_factory.mktemp("runs") / "whole")
    assert outcome(train.main, *flags, f"--run_dir={directory.path}") == 0
    return directory


def rows(directory: RunDirectory) -> list[dict[str, str]]:
    with directory.metrics.open(newline="") as file:
        return list(csv.DictReader(file))


def test_the_files_of_a_finished_run(finished):
    results = finished.read_results()
    assert set(results["test"]["recall_at_k"]) == {"1", "2"}
    assert results["test"]["num_queries"] == len(_QUERY_CLASSES)
    assert results["validation"]["num_queries"] == 2 * 3
    assert results["config"]["loss"] == "ccp/contrastive"
    assert results["versions"]["tensorflow"] == tf.__version__
    assert results["epochs"] == 2
    assert [row["step"] for row in rows(finished)] == ["2", "4"]
    assert json.loads(finished.environment.read_text())["versions"] == results["versions"]
    assert {path.name for path in finished.tensorboard.iterdir()} >= {"train", "validation", "test"}


def test_an_interrupted_run_continues_to_the_same_result(finished, flags, tmp_path, monkeypatch, capfd):
    directory = RunDirectory(tmp_path / "run")
    command = [*flags, "--notensorboard", f"--run_dir={directory.path}"]

    def interrupt(callback, batch, logs=None):
        if len(callback._rows) == 1 and batch == 0:
            os.kill(os.getpid(), signal.SIGINT)

    with monkeypatch.context() as patch:
        patch.setattr(MetricsCsv, "on_train_batch_end", interrupt)
        assert outcome(train.main, *command) == commands.INTERRUPTED
    *_, last = capfd.readouterr().err.splitlines()
    assert last.startswith("interrupted: after step 3, saved; the same flags with --run_dir=")
    assert directory.state is State.UNFINISHED
    assert [row["step"] for row in rows(directory)] == ["2"]

    assert outcome(train.main, *command) == 0
    captured = capfd.readouterr()
    assert captured.out.startswith(f"{directory.path}: continuing on ")
    assert captured.err.startswith("warning: training has not improved MAP@R over the frozen features;")
    assert [row["step"] for row in rows(directory)] == ["2", "4"]
    # The rows are those of the run without interruption, even for the epoch that was interrupted.
    for name in ("loss", "problem_instance", "val_map_at_r"):
        assert [row[name] for row in rows(directory)] == [row[name] for row in rows(finished)]
    for split in ("test", "validation", "frozen_features"):
        assert directory.read_results()[split] == finished.read_results()[split]


def test_the_flagfile_in_the_run_directory_repeats_the_run(finished, tmp_path, monkeypatch):
    """The result does not depend on the number of parallel readers of images."""
    monkeypatch.setattr(tf.data, "AUTOTUNE", 1)
    again = RunDirectory(tmp_path / "again")
    assert outcome(train.main, f"--flagfile={finished.config}", f"--run_dir={again.path}") == 0
    assert_same(again, finished)


def test_evaluate_prints_the_results_again(finished, capsys):
    assert outcome(evaluate.main, f"--run_dir={finished.path}") == 0
    expected = format_table({"ccp/contrastive": finished.read_results()["test"]})
    captured = capsys.readouterr()
    assert captured.out == f"scored: 3 queries of 3 classes in 9 gallery images of 4 classes\n{expected}\n"
    assert captured.err == ""


def test_the_exported_model_finds_what_the_evaluation_found(finished, data, tmp_path, capsys):
    output = tmp_path / "deep" / "model"
    assert outcome(export.main, f"--run_dir={finished.path}", f"--output={output}") == 0
    assert capsys.readouterr() == (f"SavedModel: {output}\n", "")
    queries = [data / f"class {label:02d}" / "0.png" for label in _QUERY_CLASSES]
    gallery = [data / f"class {label:02d}" / f"{index}.png" for label in _QUERY_CLASSES for index in (1, 2)]
    gallery += [data / "class 09" / f"{index}.png" for index in range(3)]
    for folder in (output, finished.saved_model):
        model = tf.saved_model.load(str(folder))
        found, searched = _embed_every_way(model, queries), _embed_every_way(model, gallery)
        nearest = np.linalg.norm(found[:, np.newaxis] - searched, axis=-1).argmin(axis=-1)
        correct = [gallery[row].parent == query.parent for row, query in zip(nearest, queries)]
        assert np.mean(correct) == finished.read_results()["test"]["precision_at_1"]


def _embed_every_way(model, files: list[Path]) -> np.ndarray:
    """Embeddings of files, after a check that all three signatures agree."""
    pixels = np.stack([np.asarray(Image.open(file)) for file in files])
    signatures = model.signatures
    embeddings = signatures["serve_encoded"](image_bytes=tf.constant([file.read_bytes() for file in files]))
    for other in (
        signatures["serve_uint8"](images=tf.constant(pixels)),
        signatures["serving_default"](images=tf.constant(pixels, tf.float32)),
    ):
        np.testing.assert_allclose(other["embeddings"], embeddings["embeddings"], rtol=0, atol=1e-5)
    return embeddings["embeddings"].numpy()


@pytest.mark.slow
def test_without_epochs_the_initial_model_is_scored_and_then_replaced(flags, finished, tmp_path, capsys):
    directory = RunDirectory(tmp_path / "run")
    command = [*flags, f"--run_dir={directory.path}", "--max_epochs=0"]
    assert outcome(train.main, *command) == 0
    results = directory.read_results()
    assert results["frozen_features"] == finished.read_results()["frozen_features"]
    assert (results["epochs"], directory.metrics.exists()) == (0, False)
    capsys.readouterr()
    assert outcome(train.main, *command) == commands.BAD_INPUT
    assert "it holds a finished run" in capsys.readouterr().err
    assert outcome(train.main, *command, "--overwrite", "--notensorboard", "--seed=1") == 0
    assert directory.read_results()["config"]["seed"] == 1
    assert not directory.tensorboard.exists()
