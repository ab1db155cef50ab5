"""Single runs from flags to results, and the messages of those that fail."""

from __future__ import annotations

import csv
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tensorflow as tf

import train
from ccp_dml import commands, evaluate
from ccp_dml.config import ExperimentConfig
from ccp_dml.errors import UserError
from ccp_dml.evaluation.embedding import Embedder, embed
from ccp_dml.evaluation.report import format_table
from ccp_dml.experiment import model, single
from ccp_dml.experiment import run as experiment
from ccp_dml.experiment.build import Run, build_model
from ccp_dml.experiment.finished import FinishedRun
from ccp_dml.experiment.scoring import UnusableEmbeddings
from ccp_dml.losses import Contrastive, CrossBatchMemory
from ccp_dml.models.embedding_model import with_test_crops
from ccp_dml.run_directory import RunDirectory
from ccp_dml.training.chunks import ChunkRunner
from tests.data.image_folder import DESIGNS, SMALL_RUN, write_classes, write_emoji, write_manifest

EPOCHS = 3
SHORT = ("--steps_per_epoch=4", "--chunk_size=2", f"--max_epochs={EPOCHS}", "--learning_rate=1e-3")


def column(run_dir: Path, name: str) -> list[float]:
    with (run_dir / "metrics.csv").open(newline="") as file:
        return [float(row[name]) for row in csv.DictReader(file)]


def test_results_hold_every_value_and_a_run_without_gain_says_so(configured, tmp_path, capsys):
    flags = ("--max_epochs=1", "--steps_per_epoch=1", "--learning_rate=1e-9", "--negative_margin=0.7")
    results = experiment.train(configured(tmp_path / "run", *flags, "--loss=ccp/xbm/contrastive"))
    config, loss = results["config"], CrossBatchMemory(Contrastive(), embedding_size=8)
    assert (config["negative_margin"], config["ccp_lambda"]) == (0.7, 2e-4)
    assert config["positive_margin"] == loss.base.positive_margin
    assert (config["memory_size"], config["memory_weight"]) == (loss.memory_size, loss.memory_weight)
    assert config["temperature"] is None  # Not a parameter of this loss.
    captured = capsys.readouterr()
    assert f"{tmp_path / 'run'}: new run on {model.devices_in_words()}; train " in captured.out
    gain = results["test"]["map_at_r"] - results["frozen_features"]["map_at_r"]
    assert ("training has not improved MAP@R over the frozen features" in captured.err) == (gain <= 0)


@pytest.mark.parametrize("driver, expected", [(False, ""), (True, "TensorFlow cannot load CUDA")])
def test_a_gpu_that_tensorflow_cannot_use_is_named(tmp_path, monkeypatch, driver, expected):
    monkeypatch.setattr(tf.config, "list_physical_devices", lambda kind: [])
    monkeypatch.setattr(model, "_NVIDIA_DRIVER", tmp_path if driver else tmp_path / "none")
    text = model.devices_in_words()
    assert text.startswith("CPU, ")
    assert expected in text
    assert ("NVIDIA" in text) == driver


@pytest.mark.slow
@pytest.mark.parametrize(
    "flags",
    [
        ["--monitor_split=test", "--num_folds=3", "--fold=1"],
        ["--noccp_use_representative_proxy", "--ccp_reset_rule=patience", "--ccp_patience=1"],
        ["--pool_memory_steps=3", "--ccp_reset_rule=patience", "--ccp_patience=1"],
        ["--ccp_step_at_batch", "--ccp_min_iterations=2", "--chunk_size=10"],
        ["--image_size=32x16", "--test_crops=2"],
        ["--warm_up_epochs=1", "--warm_up_learning_rate=1e-2"],
        ["--ccp_reset_rule=staleness", "--ccp_staleness_threshold=0.01", "--ccp_normalized_embeddings"],
        ["--ccp_reset_rule=fixed", "--ccp_random_init", "--ccp_perturb_noise=0.01"],
        ["--ema_attraction=0.1", "--ema_repulsion=1e-6", "--ema_decay=0.9"],
        ["--loss=contrastive", "--proxies_per_class=", "--pool_size=7"],
    ],
    ids=lambda flags: flags[0].lstrip("-"),
)
def test_a_run_reaches_its_last_epoch_with(configured, tmp_path, flags):
    results = experiment.train(configured(tmp_path / "run", *SHORT, "--pool_size=7", *flags))
    assert results["epochs"] == EPOCHS
    assert np.isfinite(column(tmp_path / "run", "loss")).all()
    if "--ccp_reset_rule=staleness" in flags or "--ccp_reset_rule=fixed" in flags:
        assert column(tmp_path / "run", "problem_instance") == [0, 1, 2]


@pytest.mark.slow
@pytest.mark.parametrize("restore", [True, False])
def test_the_best_or_the_last_weights_are_evaluated(configured, tmp_path, monkeypatch, restore):
    measure, reported = Run.monitored_scores, iter([0.1, 0.3, 0.2])
    kernels, measured = [], []

    def monitored_scores(run: Run) -> dict[str, float]:
        scores = measure(run)
        kernels.append(run.model.trainable_variables[0].numpy())
        measured.append(scores["map_at_r"])
        return {**scores, "map_at_r": next(reported)}

    monkeypatch.setattr(Run, "monitored_scores", monitored_scores)
    flags = ["--patience=1", "--max_epochs=40", f"--restore_best={restore}".lower(), "--notensorboard"]
    results = experiment.train(configured(tmp_path / "run", *SHORT, "--pool_size=7", *flags))
    assert (results["epochs"], results["best_epoch"]) == (3, 1)
    evaluated = 1 if restore else 2
    assert results["validation"]["map_at_r"] == pytest.approx(measured[evaluated], abs=1e-6)
    kernel = FinishedRun(RunDirectory(tmp_path / "run")).model.trainable_variables[0].numpy()
    np.testing.assert_array_equal(kernel, kernels[evaluated])
    assert np.any(kernels[1] != kernels[2])


@pytest.mark.slow
def test_frozen_layers_keep_their_weights_and_the_served_model_is_the_evaluated_one(configured, tmp_path):
    config = configured(
        tmp_path / "run",
        "--backbone_options=stages=2,blocks=1",
        "--normalization=l1",
        "--pooling=gem",
        "--test_crops=2",
        "--frozen_layers=stem stage0_block0_reduce",
        "--backbone_layer=stage1_block0_add",
        "--steps_per_epoch=2",
        "--max_epochs=2",
    )
    initial = build_model(config.model, config.images.image_size, config.run.seed)
    before = {variable.name: variable.numpy() for variable in initial.weights}
    experiment.train(config)
    trained = FinishedRun(RunDirectory(tmp_path / "run"))
    changed = {
        variable.name.split("/")[0]
        for variable in trained.model.weights
        if np.any(variable.numpy() != before[variable.name])
    }
    assert "stage0_block0_conv" in changed
    assert "features" in changed
    assert not changed & {"stem", "stem_norm", "stage0_block0_reduce"}

    signature = tf.saved_model.load(str(tmp_path / "run" / "saved_model")).signatures["serving_default"]
    images = np.random.default_rng(0).uniform(0, 255, (2, 32, 32, 3)).astype(np.float32)
    side = config.images.test_shorter_side
    large = tf.image.resize(images, (side, side))
    start = (side - 32) // 2
    cropped = large[:, start : start + 32, start : start + 32]
    expected = embed(with_test_crops(trained.model, 2), [cropped], "l1")
    np.testing.assert_allclose(signature(images=tf.constant(large))["embeddings"], expected, atol=1e-4)


@pytest.fixture
def train_on_folder(tmp_path, capsys):
    """A function that trains on the folder `data` for two short epochs; returns its output and results."""

    def train_with(*flags: str) -> tuple[str, dict[str, Any]]:
        arguments = (
            *SMALL_RUN,
            f"--data_dir={tmp_path / 'data'}",
            f"--prepared_dir={tmp_path / 'prepared'}",
            f"--run_dir={tmp_path / 'run'}",
            "--image_size=16",
            "--steps_per_epoch=2",
            "--max_epochs=2",
            "--notensorboard",
            *flags,
        )
        assert commands.run(lambda: train.main(arguments)) == 0
        return capsys.readouterr().out, RunDirectory(tmp_path / "run").read_results()

    return train_with


# SMALL_RUN sets flags of the default sampler, which must have their default values with another one.
OTHER_SAMPLER = ("--classes_per_batch=8", "--samples_per_class=4")


def test_a_run_on_a_closed_set(train_on_folder, tmp_path, capsys):
    write_emoji(tmp_path / "data", num_classes=6, emoji_per_class=2)
    batches = ["--classes_per_batch=4", "--representative_lifetime=2"]
    loss = ["--loss=contrastive", "--proxies_per_class=", "--pool_size=7"]
    printed, results = train_on_folder("--closed_set", "--data_seed=3", "--max_epochs=1", *batches, *loss)
    assert "train 36 images of 6 classes; validation 12 images of 6 classes; test 12 images of 6" in printed
    assert results["data"] == {
        "train": {"images": 36, "classes": 6},
        "validation": {"images": 12, "classes": 6},
        "test": {"images": 12, "classes": 6},
        "skipped_images": 0,
        "wrong_labels": 0,
    }
    assert results["config"]["closed_set"] == "shuffled"
    assert results["validation"]["num_queries"] == results["test"]["num_queries"] == 12
    assert commands.run(lambda: evaluate.main([f"--run_dir={tmp_path / 'run'}"])) == 0
    table = format_table({"contrastive": results["test"]})
    assert capsys.readouterr().out == f"scored: 12 queries of 6 classes\n{table}\n"


@pytest.mark.slow
def test_a_run_with_noisy_labels(train_on_folder, tmp_path):
    write_emoji(tmp_path / "data", num_classes=14)
    flags = ["--label_noise=0.2", "--validation_fraction=0.3", "--preprocessing=mnist"]
    printed, results = train_on_folder(*OTHER_SAMPLER, "--sampler=random", *flags)
    assert "7 training labels are wrong on purpose" in printed
    assert results["data"]["wrong_labels"] == round(0.2 * 7 * len(DESIGNS))
    assert results["config"]["label_noise"] == 0.2
    assert results["config"]["batch_size"] == 32
    assert results["data"]["test"] == {"images": 35, "classes": 7}
    assert np.isfinite(results["test"]["map_at_r"])


@pytest.mark.slow
def test_a_run_with_queries_and_a_gallery(train_on_folder, tmp_path):
    names = write_emoji(tmp_path / "data", num_classes=9)
    files = {name: sorted((tmp_path / "data" / name).iterdir()) for name in names}
    splits = {name: ["train"] * 5 for name in names[:6]}
    splits |= {name: ["query", *["gallery"] * 4] for name in names[6:]}
    rows = [
        (f"{name}/{file.name}", name, split)
        for name in names
        for file, split in zip(files[name], splits[name])
    ]
    write_manifest(tmp_path / "data", rows)
    flags = ["--sampler=class_uniform", "--batch_size=6", "--preprocessing=cifar"]
    printed, results = train_on_folder(*OTHER_SAMPLER, *flags, "--validation_fraction=0.34")
    assert "gallery 12 images of 3 classes" in printed
    assert results["data"]["gallery"] == {"images": 12, "classes": 3}
    assert results["test"]["num_queries"] == 3


@pytest.fixture(scope="module")
def flags_with_resets(tmp_path_factory) -> tuple[str, ...]:
    """Flags of a run whose proxies are reset: 9 training images, 6 of validation, 18 of test."""
    root = tmp_path_factory.mktemp("images")
    return (
        *SMALL_RUN,
        f"--data_dir={write_classes(root / 'source', 11)}",
        f"--prepared_dir={root / 'prepared'}",
        "--validation_fraction=0.4",
        "--steps_per_epoch=1",
        "--max_epochs=2",
        "--ccp_reset_rule=patience",
        "--ccp_patience=1",
        "--evaluation_batch_size=8",
        "--notensorboard",
    )


def run_out_of_memory_once(monkeypatch, normalization: str, call: int) -> list[int]:
    """Makes one call of embedders with this normalisation fail; returns the batch sizes of all calls."""
    embed, sizes = Embedder.__call__, []

    def embed_or_fail(embedder: Embedder, batches):
        if embedder._normalization != normalization:
            return embed(embedder, batches)
        images = list(batches)
        sizes.append(len(images[0]))
        if len(sizes) == call:
            raise tf.errors.ResourceExhaustedError(None, None, "OOM when allocating tensor")
        return embed(embedder, images)

    monkeypatch.setattr(Embedder, "__call__", embed_or_fail)
    return sizes


@pytest.mark.parametrize(
    "normalization, call, batches",
    [
        # Pools of all 9 images, without normalisation: before the first epoch, and after both.
        ("none", 1, [8, 2, 2]),
        # Validation after two epochs; then test and, once more, validation.
        ("lipschitz", 2, [6, 6, 2, 2, 2]),
    ],
    ids=["reset", "validation"],
)
def test_a_run_short_of_memory_continues_in_smaller_blocks(
    flags_with_resets, tmp_path, monkeypatch, capsys, normalization, call, batches
):
    sizes = run_out_of_memory_once(monkeypatch, normalization, call)
    assert commands.run(lambda: train.main([*flags_with_resets, f"--run_dir={tmp_path}"])) == 0
    lines = capsys.readouterr().err.splitlines()
    assert [line for line in lines if line.startswith("warning: --")] == [
        "warning: --evaluation_batch_size=8: too little memory to embed or search; going on with 2"
    ]
    assert sizes[: len(batches)] == batches
    assert set(sizes[call:]) == {2}
    assert RunDirectory(tmp_path).read_results()["epochs"] == 2


def test_a_training_step_without_memory_gives_one_line(flags_with_resets, tmp_path, monkeypatch, capsys):
    def exhaust(runner, iterator, steps):
        raise tf.errors.ResourceExhaustedError(None, None, "OOM when allocating tensor")

    monkeypatch.setattr(ChunkRunner, "__call__", exhaust)
    arguments = [*flags_with_resets, f"--run_dir={tmp_path}"]
    assert commands.run(lambda: train.main(arguments)) == commands.BAD_INPUT
    *_, line = capsys.readouterr().err.splitlines()
    assert line.startswith(f"error: --run_dir={tmp_path}: too little memory for a step of training; ")


@pytest.mark.parametrize("saved", [False, True])
def test_unusable_embeddings_name_the_step_and_the_last_checkpoint(tmp_path, saved):
    class Diverging:
        step = tf.Variable(7)

        def restore(self) -> None:
            pass

        def fit(self, max_epochs: int) -> None:
            raise UnusableEmbeddings("the embeddings are odd")

    directory = RunDirectory(tmp_path)
    if saved:
        (directory.checkpoints / "step-6").mkdir(parents=True)
    kept = r"the last checkpoint is .*step-6.*" if saved else "there is no checkpoint"
    with pytest.raises(UserError, match=rf"after step 7 the embeddings are odd; {kept}\. Try a lower"):
        single.fit(Diverging(), ExperimentConfig(), directory)
