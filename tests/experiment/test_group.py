"""Groups of two folds and two repeats: trained, interrupted, continued, evaluated, exported."""

from __future__ import annotations

import csv
import json
import math
import os
import signal
from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf

import train
from ccp_dml import commands, evaluate, export
from ccp_dml.config import ExperimentConfig
from ccp_dml.config.protocols import is_group, resolve
from ccp_dml.experiment import run as experiment
from ccp_dml.experiment.group import paper_results
from ccp_dml.monitoring.console import MetricsCsv
from ccp_dml.run_directory import RunDirectory, State
from tests.data.image_folder import write_image
from tests.evaluation import oracle
from tests.experiment import tiny_backbone

CLASSES, PER_CLASS = 12, 3
LABELS = np.repeat(np.arange(CLASSES // 2), PER_CLASS)
KINDS = ("separate", "concatenated", "concatenated_unit")
MEMBERS = [(1, 1), (2, 1), (1, 2), (2, 2)]


def write_folder(folder: Path, seed: int) -> Path:
    """Classes of nearly the same colours: no score is perfect."""
    for label in range(CLASSES):
        for index in range(PER_CLASS):
            file = folder / f"class {label:02d}" / f"{index}.png"
            write_image(file, (120 + 4 * (label % 4), 120 + 4 * (label // 4), 128), seed + 10 * label + index)
    return folder


@pytest.fixture(scope="module", autouse=True)
def backbone():
    with pytest.MonkeyPatch.context() as monkeypatch:
        tiny_backbone.register(monkeypatch)
        yield


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    root = tmp_path_factory.mktemp("groups")
    write_folder(root / "source", seed=0)
    return root


@pytest.fixture(scope="module")
def flags(folder) -> list[str]:
    return [
        "--dataset=image_folder",
        f"--data_dir={folder / 'source'}",
        f"--prepared_dir={folder / 'prepared'}",
        "--backbone=tiny",
        "--embedding_size=4",
        "--classes_per_batch=3",
        "--samples_per_class=2",
        "--loss=contrastive",
        "--learning_rate=0.01",
        "--steps_per_epoch=2",
        "--max_epochs=2",
        "--recall_at=1,2",
        "--tensorboard_panels=0",
        "--notensorboard_histograms",
        "--notensorboard_projector",
    ]


@pytest.fixture(scope="module")
def group_flags(flags) -> list[str]:
    return [*flags, "--protocol=mlrc", "--num_folds=2", "--repeat=2", "--seed=5"]


def outcome(main, *arguments: str) -> int:
    return commands.run(lambda: main(arguments))


@pytest.fixture(scope="module")
def finished(group_flags, folder) -> RunDirectory:
    directory = RunDirectory(folder / "group")
    assert outcome(train.main, *group_flags, f"--run_dir={directory.path}") == 0
    return directory


def member(directory: RunDirectory, fold: int, repeat: int) -> RunDirectory:
    return RunDirectory(directory.path / f"fold_{fold}" / f"repeat_{repeat}")


def test_every_member_is_a_complete_run(finished):
    listed = finished.read_results()["members"]
    assert [(row["fold"], row["repeat"]) for row in listed] == MEMBERS
    assert [row["seed"] for row in listed] == [5, 5, 6, 6]
    for row in listed:
        directory = RunDirectory(finished.path / row["run_dir"])
        assert directory.path == member(finished, row["fold"], row["repeat"]).path
        results = directory.read_results()
        assert (row["test"], row["validation"]) == (results["test"], results["validation"])
        config = directory.read_config()
        assert (config.split.fold, config.run.repeat, config.run.seed) == (row["fold"], 1, row["seed"])
        assert not is_group(config)
        assert (directory.saved_model / "saved_model.pb").exists()


def by_hand(embeddings: list[list[float]]) -> dict[str, float]:
    """The oracle's P@1 and MAP@R."""
    labels = np.repeat(np.arange(len(embeddings) // PER_CLASS), PER_CLASS)
    found = [
        oracle.metrics(ranking, labels[query], labels, (), (), ())
        for query, ranking in enumerate(oracle.rankings(np.array(embeddings), None))
    ]
    return {name: sum(row[name] for row in found) / len(found) for name in ("precision_at_1", "map_at_r")}


def unit(row: np.ndarray) -> list[float]:
    length = math.sqrt(sum(float(value) ** 2 for value in row))
    return [float(value) / length for value in row]


def test_the_aggregate_equals_that_of_a_slow_oracle(finished):
    values: dict[str, list[dict[str, float]]] = {kind: [] for kind in KINDS}
    for repeat in (1, 2):
        folds = [np.load(member(finished, fold, repeat).embeddings("test")) for fold in (1, 2)]
        assert folds[0].dtype == np.float32
        alone = [by_hand(fold.tolist()) for fold in folds]
        values["separate"].append({name: sum(row[name] for row in alone) / 2 for name in alone[0]})
        rows = range(len(LABELS))
        values["concatenated"].append(by_hand([[*folds[0][i], *folds[1][i]] for i in rows]))
        values["concatenated_unit"].append(by_hand([unit(folds[0][i]) + unit(folds[1][i]) for i in rows]))
    results = finished.read_results()
    assert [results[kind]["dimensions"] for kind in KINDS] == [4, 8, 8]
    for kind, repeats in values.items():
        for name in ("precision_at_1", "map_at_r"):
            first, second = (repeat[name] for repeat in repeats)
            found = {key: results[kind][key][name] for key in ("mean", "best", "worst", "confidence_95")}
            # Two repeats: 12.7062 is Student's quantile for one degree of freedom, s / sqrt(2) half the gap.
            assert found == pytest.approx(
                {
                    "mean": (first + second) / 2,
                    "best": max(first, second),
                    "worst": min(first, second),
                    "confidence_95": 12.7062 * abs(first - second) / 2,
                },
                abs=1e-5,
            )


def test_the_csv_holds_the_report_and_evaluation_repeats_it(finished, capsys):
    results = finished.read_results()
    with finished.table.open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [(row["fold"], row["repeat"]) for row in rows if row["kind"] == "run"] == [
        (str(fold), str(repeat)) for fold, repeat in MEMBERS
    ]
    for row in rows:
        if row["statistic"] not in ("value", "paper", "difference"):
            expected = results[row["kind"]][row["statistic"]]
            assert float(row["map_at_r"]) == expected["map_at_r"]
            assert float(row["recall_at_2"]) == expected["recall_at_k"]["2"]
    report = experiment.evaluate(str(finished.path))
    for kind in KINDS:
        assert json.loads(json.dumps(report[kind])) == results[kind]
    scored, table = capsys.readouterr().out.split("\n", 1)
    assert scored == "scored: 18 queries of 6 classes"
    assert f"{100 * results['concatenated']['mean']['map_at_r']:.2f}" in table
    (events,) = (finished.tensorboard / "report").iterdir()
    texts = [
        value.tensor.string_val[0].decode()
        for record in tf.data.TFRecordDataset(str(events)).as_numpy_iterator()
        for value in tf.compat.v1.Event.FromString(record).summary.value
    ]
    assert [text.replace("    ", "", 1).replace("\n    ", "\n") for text in texts] == [table.strip("\n")]


def test_an_interrupted_group_continues_to_the_same_results(
    finished, group_flags, tmp_path, monkeypatch, capfd
):
    directory = RunDirectory(tmp_path / "group")
    command = [*group_flags, "--repeat=1", f"--run_dir={directory.path}"]

    def interrupt(callback, batch, logs=None):
        if (member(directory, 2, 1).path / "metrics.csv").exists() and len(callback._rows) == 1:
            os.kill(os.getpid(), signal.SIGINT)

    with monkeypatch.context() as patch:
        patch.setattr(MetricsCsv, "on_train_batch_end", interrupt)
        assert outcome(train.main, *command) == commands.INTERRUPTED
    assert f"the same flags with --run_dir={directory.path} go on" in capfd.readouterr().err
    assert [member(directory, fold, 1).state for fold in (1, 2)] == [State.FINISHED, State.UNFINISHED]
    assert directory.state is State.UNFINISHED

    assert outcome(train.main, *command, "--learning_rate=0.02") == commands.BAD_INPUT
    assert "--learning_rate=0.02: the unfinished run in" in capfd.readouterr().err
    kept = member(directory, 1, 1).results.stat().st_mtime_ns
    assert outcome(train.main, *command) == 0
    captured = capfd.readouterr().out
    assert f"{member(directory, 1, 1).path}: finished before" in captured
    assert f"{member(directory, 2, 1).path}: continuing" in captured
    assert member(directory, 1, 1).results.stat().st_mtime_ns == kept
    results, whole = directory.read_results(), finished.read_results()
    for kind in KINDS:
        assert results[kind]["repeats"] == whole[kind]["repeats"][:1]
        assert "confidence_95" not in results[kind]

    assert outcome(train.main, *command) == commands.BAD_INPUT
    assert "it holds a finished run" in capfd.readouterr().err


def test_the_configuration_of_a_member_repeats_it_and_replaces_a_group(finished, tmp_path):
    one = member(finished, 2, 2)
    group = RunDirectory(tmp_path / "run")
    group.begin(finished.read_config().replace(run_dir=str(group.path)))
    member(group, 1, 1).begin(one.read_config().replace(run_dir=str(member(group, 1, 1).path)))
    command = [f"--flagfile={one.config}", f"--run_dir={group.path}", "--overwrite"]
    assert outcome(train.main, *command) == 0
    for split in ("test", "validation", "frozen_features"):
        assert group.read_results()[split] == one.read_results()[split]
    assert not member(group, 1, 1).path.parent.exists()


@pytest.mark.slow
def test_a_run_can_start_from_the_weights_of_another(finished, flags, tmp_path):
    pattern = f"{finished.path}/fold_{{fold}}/repeat_2"
    command = [*flags, "--num_folds=2", "--fold=2", "--max_epochs=0", f"--initial_weights={pattern}"]
    directory = RunDirectory(tmp_path / "run")
    assert outcome(train.main, *command, f"--run_dir={directory.path}") == 0
    assert directory.read_results()["test"] == member(finished, 2, 2).read_results()["test"]
    assert directory.read_config().model.initial_weights == str(member(finished, 2, 2).path)


def test_start_weights_of_another_model_are_refused(finished, flags, tmp_path, capsys):
    weights = tmp_path / "text.h5"
    weights.write_text("none")
    for path in (member(finished, 1, 1).path, weights):
        command = [*flags, "--embedding_size=3", f"--initial_weights={path}", f"--run_dir={tmp_path / 'run'}"]
        assert outcome(train.main, *command) == commands.BAD_INPUT
        assert f"--initial_weights={path}: expected weights of the same" in capsys.readouterr().err
    assert not (tmp_path / "run").exists()


def reduced(training: np.ndarray, test: np.ndarray, dimensions: int) -> np.ndarray:
    """Principal components by the eigenvectors of the covariance, float64."""
    training = training.astype(np.float64)
    centered = training - training.mean(axis=0)
    _, vectors = np.linalg.eigh(centered.T @ centered)
    return (test - training.mean(axis=0)) @ vectors[:, ::-1][:, :dimensions]


def embed_with(saved_model: Path, folder: Path, classes: range) -> np.ndarray:
    model = tf.saved_model.load(str(saved_model))
    files = [folder / f"class {label:02d}" / f"{index}.png" for label in classes for index in range(3)]
    images = tf.constant([file.read_bytes() for file in files])
    return model.signatures["serve_encoded"](image_bytes=images)["embeddings"].numpy()


@pytest.mark.slow
def test_all_runs_of_a_group_are_exported_after_a_pca(finished, folder, tmp_path, capsys):
    output = tmp_path / "models"
    assert outcome(export.main, f"--run_dir={finished.path}", f"--output={output}", "--pca_dim=2") == 0
    assert sorted(path.relative_to(output).as_posix() for path in output.glob("*/*")) == [
        f"fold_{fold}/repeat_{repeat}" for fold in (1, 2) for repeat in (1, 2)
    ]
    one, train_classes, test_classes = member(finished, 1, 1), range(6), range(6, 12)
    training, test = (
        embed_with(one.saved_model, folder / "source", classes) for classes in (train_classes, test_classes)
    )
    np.testing.assert_allclose(test, np.load(one.embeddings("test")), atol=1e-5)
    expected = reduced(training, test, 2)
    found = embed_with(output / "fold_1" / "repeat_1", folder / "source", test_classes)
    np.testing.assert_allclose(np.abs(found), np.abs(expected), atol=1e-5)
    capsys.readouterr()


@pytest.mark.slow
def test_a_run_is_scored_on_another_data_set(finished, folder, tmp_path, capsys):
    other = write_folder(tmp_path / "other", seed=1000)
    one = member(finished, 1, 1)
    means = experiment.evaluate(str(one.path), data_dir=str(other), prepared_dir=str(tmp_path / "prepared"))
    expected = by_hand(embed_with(one.saved_model, other, range(12)).tolist())
    assert {name: means[name] for name in expected} == pytest.approx(expected)
    assert "scored: 36 queries of 12 classes" in capsys.readouterr().out
    assert means["map_at_r"] != one.read_results()["test"]["map_at_r"]
    # The PCA is still fitted on the training images of the run, those of all folds.
    means = experiment.evaluate(
        str(one.path), data_dir=str(other), prepared_dir=str(tmp_path / "prepared"), pca_dim=2
    )
    training = embed_with(one.saved_model, folder / "source", range(6))
    test = embed_with(one.saved_model, other, range(12))
    assert means["map_at_r"] == pytest.approx(by_hand(reduced(training, test, 2).tolist())["map_at_r"])
    capsys.readouterr()


@pytest.mark.parametrize(
    "arguments, expected",
    [
        (["--pca_dim=5"], "--pca_dim=5: expected at most --embedding_size=4"),
        (["--pca_dim=0"], "--pca_dim=0: expected an integer, at least 1"),
        (["--pca_dim=x"], "argument --pca_dim: invalid int value: 'x'"),
        (["--dataset=none"], "--dataset=none is unknown"),
        (["--data_dir=/none"], "--data_dir=/none is not a folder"),
    ],
)
def test_mistakes_in_an_evaluation_give_one_line(finished, arguments, expected, capsys):
    assert outcome(evaluate.main, f"--run_dir={finished.path}", *arguments) == commands.BAD_INPUT
    assert expected in capsys.readouterr().err


DIMENSIONS = {"separate": 128, "concatenated": 512}


def of_paper(**flags) -> ExperimentConfig:
    values = {"dataset": "cub", "backbone": "bn_inception", "loss": "ccp/contrastive", "protocol": "mlrc"}
    return resolve(ExperimentConfig.from_dict({**values, **flags}))


@pytest.mark.parametrize(
    "flags, differences",
    [
        ({}, ""),
        ({"backbone": "resnet50"}, "its backbone is bn_inception, here resnet50"),
        ({"check_counts": False}, "other images or labels here: --check_counts=false"),
        (
            {"backbone": "resnet50", "crop_to_box": True, "label_noise": 0.1},
            "its backbone is bn_inception, here resnet50; "
            "other images or labels here: --crop_to_box --label_noise=0.1",
        ),
        ({"prepared_shorter_side": 256}, "other images or labels here: --prepared_shorter_side=256"),
        ({"skip_bad_images": True}, "other images or labels here: --skip_bad_images"),
    ],
)
def test_differences_from_the_paper_are_named(flags, differences):
    config = of_paper(**flags)
    found = paper_results(config, config, DIMENSIONS)
    assert "; ".join(found.differences) == differences
    assert found.method == "C2-CCP-L"
    assert found.values["separate"]["map_at_r"] == 0.2267
    assert found.values["concatenated"]["map_at_r"] == 0.2802


@pytest.mark.parametrize(
    "flags, changes",
    [
        ({"num_folds": 3}, {}),
        ({"loss": "xbm/triplet"}, {}),
        ({"dataset": "emoji"}, {}),
        ({}, {"dataset": "cars196"}),
        ({}, {"pca_dim": 64}),
    ],
)
def test_other_protocols_and_tests_have_no_row(flags, changes):
    config = of_paper(**flags)
    assert paper_results(config, config.replace(**changes), DIMENSIONS) is None
