"""The estimate of the memory that a batch needs, and runs that are refused by it."""

from __future__ import annotations

from pathlib import Path

import pytest
import tensorflow as tf

import train
from ccp_dml import commands, environment
from ccp_dml.experiment.model import inference_bytes, training_bytes
from tests.data.image_folder import SMALL_RUN, write_classes


def model(*, trained_from: int = 0) -> tf.keras.Model:
    """A model in a model: 8 x 8 images to maps of 8 x 8 x 2, twice, then 4 x 4 x 4, then 3 dimensions."""
    layers = [
        tf.keras.layers.Conv2D(2, 3, padding="same"),
        tf.keras.layers.BatchNormalization(),
        tf.keras.layers.ReLU(),
        tf.keras.layers.Conv2D(4, 3, strides=2, padding="same"),
    ]
    inputs = tf.keras.Input([8, 8, 3])
    outputs = inputs
    for number, layer in enumerate(layers):
        layer.trainable = number >= trained_from
        outputs = layer(outputs)
    images = tf.keras.Input([8, 8, 3])
    features = tf.keras.layers.Flatten()(tf.keras.Model(inputs, outputs)(images))
    return tf.keras.Model(images, tf.keras.layers.Dense(3)(features))


@pytest.mark.parametrize(
    "trained_from, numbers",
    [(0, 128 + 128 + 64 + 3), (1, 128 + 64 + 3), (2, 64 + 3), (4, 3)],
)
def test_layers_with_weights_count_from_the_first_trained_one_on(trained_from, numbers):
    assert training_bytes(model(trained_from=trained_from)) == 4 * numbers


def test_inference_counts_the_largest_output():
    assert inference_bytes(model()) == 4 * 8 * 8 * 3


def test_half_precision_takes_half_of_the_memory():
    before = tf.keras.mixed_precision.global_policy()
    tf.keras.mixed_precision.set_global_policy("mixed_bfloat16")
    try:
        assert training_bytes(model()) == 2 * (128 + 128 + 64 + 3)
    finally:
        tf.keras.mixed_precision.set_global_policy(before)


@pytest.mark.parametrize(
    "text, expected", [("1000\n", 1000), ("max\n", None), ("", None), (None, None), ("9" * 30, None)]
)
def test_the_memory_of_a_container(tmp_path, monkeypatch, text, expected):
    monkeypatch.setattr(environment, "_MEMORY_LIMITS", ())
    machine = environment.memory_bytes()
    assert machine > 10**8
    if text is not None:
        (tmp_path / "memory.max").write_text(text)
    monkeypatch.setattr(environment, "_MEMORY_LIMITS", (tmp_path / "memory.max",))
    assert environment.memory_bytes() == (expected or machine)


@pytest.fixture(scope="module")
def flags(tmp_path_factory) -> list[str]:
    root = tmp_path_factory.mktemp("images")
    return [*SMALL_RUN, f"--data_dir={write_classes(root / 'source', 12)}", "--notensorboard"]


BATCH = "--classes_per_batch=3 --samples_per_class=2"


@pytest.mark.parametrize(
    "changes, expected",
    [
        (["--image_size=2048"], f"--image_size=2048 {BATCH}: a training step needs more than 98.2 GB"),
        (["--image_size=1024"], f"--image_size=1024 {BATCH}: a training step needs more than 24.6 GB"),
        (
            ["--image_size=2048x512"],
            f"--image_size=2048x512 {BATCH}: a training step needs more than 24.6 GB",
        ),
        (
            ["--image_size=1024", "--sampler=random", "--batch_size=7"],
            "--image_size=1024 --batch_size=7: a training step needs more than 28.7 GB",
        ),
        (
            ["--image_size=512", "--evaluation_batch_size=1000"],
            "--image_size=512 --evaluation_batch_size=1000: an evaluation needs more than 67.1 GB",
        ),
    ],
)
def test_a_run_that_does_not_fit_is_refused_before_it_begins(
    flags, tmp_path, monkeypatch, capsys, changes, expected
):
    monkeypatch.setattr(environment, "memory_bytes", lambda: 24 * 10**9)
    monkeypatch.setattr(tf.config, "list_physical_devices", lambda kind=None: [])
    if "--sampler=random" in changes:
        changes = [*changes, "--classes_per_batch=8", "--samples_per_class=4"]
    command = [*flags, *changes, f"--run_dir={tmp_path / 'run'}"]
    assert commands.run(lambda: train.main(command)) == commands.BAD_INPUT
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith(f"error: {expected} of memory for the activations of the network; ")
    assert line.endswith("expected at most the 24.0 GB of this machine, with smaller images or batches")
    assert not Path(tmp_path / "run").exists()
