"""Training on replicas, against one device; `test_on_replicas.py` runs these tests in another process."""

from __future__ import annotations

import csv
import functools
from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf

from ccp_dml.config import ExperimentConfig, command_line
from ccp_dml.errors import UserError
from ccp_dml.experiment.build import build
from ccp_dml.experiment.run import train
from ccp_dml.run_directory import RunDirectory
from ccp_dml.training.finite import FiniteGuard
from tests.data.image_folder import SMALL_RUN, write_classes
from tests.distributed import devices
from tests.distributed.runs import (
    BATCH,
    NUDGE,
    SMOOTH,
    Run,
    assert_same,
    assert_same_values,
    images_and_labels,
    network,
    run,
)
from tests.losses.cases import BASIC, WRAPPED, LossCase
from tests.training import tiny

MEMORY = LossCase("xbm/contrastive", {"memory_size": 20, "start_step": 2, **SMOOTH})
PAIRS = LossCase("contrastive", SMOOTH)
REPRESENTATIVES = [
    PAIRS,
    LossCase("multi_similarity"),
    MEMORY,
    LossCase("ccp/contrastive", {"proxies_per_class": 2, **SMOOTH}),
    LossCase("mdr/contrastive", {"normalization": "none", "level_weight": 0.1, **SMOOTH}),
]


@functools.cache
def on_one_device(name: str, steps: int, nudge: float = 0.0) -> Run:
    """Makes a run on one device, once."""
    [case] = [case for case in (*REPRESENTATIVES, *BASIC, *WRAPPED) if case.id == name][:1]
    return run(devices.strategy(1), case, steps, nudge=nudge)


def check(case: LossCase, replicas: int, steps: int) -> None:
    """Raises unless replicas do the same steps as one device."""
    found = run(devices.strategy(replicas), case, steps)
    assert_same(found, on_one_device(case.id, steps), on_one_device(case.id, steps, NUDGE))


@pytest.mark.parametrize("case", REPRESENTATIVES, ids=lambda case: case.id)
def test_gradients_and_weights_of_20_steps(case: LossCase) -> None:
    check(case, 2, 20)


@pytest.mark.slow
def test_gradients_and_weights_of_20_steps_on_4_replicas() -> None:
    check(MEMORY, 4, 20)


@pytest.mark.slow
@pytest.mark.parametrize("replicas", [2, 4])
@pytest.mark.parametrize("case", [*BASIC, *WRAPPED], ids=lambda case: case.id)
def test_every_loss(case: LossCase, replicas: int) -> None:
    check(case, replicas, 4)


def test_gradients_are_not_the_mean_over_the_halves_of_the_batch() -> None:
    # The first half of the first batch has no positive pair.
    model, loss, (values, labels) = network(), PAIRS.build(), images_and_labels(0)

    def gradient(rows: slice) -> np.ndarray:
        with tf.GradientTape() as tape:
            value = loss(labels[rows], model(values[rows]))
        return tape.gradient(value, model.trainable_variables)[0].numpy()

    whole = gradient(slice(BATCH))
    of_halves = (gradient(slice(BATCH // 2)) + gradient(slice(BATCH // 2, BATCH))) / 2
    found = run(devices.strategy(2), PAIRS, 1).gradients[0][0]
    np.testing.assert_allclose(found, whole, atol=1e-5 * np.linalg.norm(whole))
    assert np.linalg.norm(of_halves - whole) > 0.1 * np.linalg.norm(whole)


@pytest.mark.parametrize(
    "options",
    [
        {"model": functools.partial(network, batch_norm=True)},
        {"model": functools.partial(network, regularized=True), "optimizer": "adam", "chunk_size": 4},
        pytest.param({"optimizer": "adamw"}, marks=pytest.mark.slow),
        pytest.param({"optimizer": "lamb"}, marks=pytest.mark.slow),
        pytest.param({"jit_compile": True}, marks=pytest.mark.slow),
    ],
    ids=["batch_norm", "regularization", "adamw", "lamb", "jit_compile"],
)
def test_other_options_of_a_step(options: dict) -> None:
    found, expected = (run(devices.strategy(replicas), MEMORY, 4, **options) for replicas in (2, 1))
    assert_same(found, expected, run(devices.strategy(1), MEMORY, 4, nudge=NUDGE, **options))


def test_a_step_that_is_not_finite_is_skipped_on_all_replicas() -> None:
    options = {"model": functools.partial(network, batch_norm=True), "bad_step": 1}
    found, expected, nudged = (
        run(devices.strategy(replicas), MEMORY, 4, guard=FiniteGuard(skips=True), nudge=nudge, **options)
        for replicas, nudge in ((2, 0.0), (1, 0.0), (1, NUDGE))
    )
    assert_same_values(found, expected, nudged)
    assert found.trainer.state["guard"].logs == {"skipped_steps": 1}
    assert int(found.trainer.loss.steps.numpy()) == 3


@pytest.mark.parametrize("first, second", [(2, 1), pytest.param(1, 2, marks=pytest.mark.slow)])
def test_a_run_continues_with_another_number_of_replicas(first: int, second: int, tmp_path: Path) -> None:
    def continued(replicas: int, epochs: int, folder: Path, nudge: float = 0.0) -> Run:
        options = {"optimizer": "adam", "epochs": epochs, "folder": folder}
        return run(devices.strategy(replicas), MEMORY, 3, nudge=nudge, **options)

    continued(first, 1, tmp_path / "moved")
    moved = continued(second, 2, tmp_path / "moved")
    assert len(moved.gradients) == 3
    whole, nudged = (continued(1, 2, tmp_path / str(nudge), nudge) for nudge in (0.0, NUDGE))
    assert_same_values(moved, whole, nudged)


@pytest.mark.slow
@pytest.mark.parametrize("jit_compile", [False, True])
def test_float16_scales_the_loss_once(jit_compile: bool) -> None:
    nudge = 2.0**-9  # float16 has 11 significant bits.
    tf.keras.mixed_precision.set_global_policy("mixed_float16")
    try:
        found, expected, nudged = (
            run(devices.strategy(replicas), PAIRS, 4, jit_compile=jit_compile, nudge=nudge_of_run)
            for replicas, nudge_of_run in ((2, 0.0), (1, 0.0), (1, nudge))
        )
    finally:
        tf.keras.mixed_precision.set_global_policy("float32")
    assert_same(found, expected, nudged, nudge)


def test_a_trainer_in_the_scope_of_a_strategy_is_refused() -> None:
    with devices.strategy(2).scope(), pytest.raises(ValueError, match="expected it outside"):
        run(devices.strategy(1), PAIRS, 1)


def configured(folder: Path, *flags: str) -> ExperimentConfig:
    """Returns the configuration of a small run on four logical CPUs."""
    if not (folder / "data").exists():
        write_classes(folder / "data", 10)
    return command_line.parse(
        [
            *SMALL_RUN,
            f"--data_dir={folder / 'data'}",
            f"--prepared_dir={folder / 'prepared'}",
            f"--run_dir={folder / 'run'}",
            "--validation_fraction=0.5",
            "--classes_per_batch=2",
            "--steps_per_epoch=2",
            "--max_epochs=1",
            "--strategy=mirrored",
            "--logical_cpus=4",
            *flags,
        ]
    )


@pytest.mark.parametrize(
    "flags, message",
    [
        (["--samples_per_class=3"], r"--samples_per_class=3: .* the 6 images of a batch among 4 replicas"),
        (["--logical_cpus=3"], "--logical_cpus=3: TensorFlow has already started with 4"),
        (["--jit_compile"], "--jit_compile contradicts --strategy"),
    ],
)
def test_flags_that_contradict_the_strategy_are_refused(
    flags: list[str], message: str, tmp_path: Path
) -> None:
    with pytest.raises(UserError, match=message):
        build(configured(tmp_path, *flags))


@pytest.mark.slow
@pytest.mark.parametrize(
    "replicated, everywhere",
    [
        ([], []),
        (["--shard_proxies"], []),
        ([], ["--pool_memory_steps=3"]),
        (["--shard_proxies"], ["--pool_memory_steps=3"]),
    ],
    ids=["whole", "sharded", "memory", "sharded, memory"],
)
def test_a_run_of_the_command_equals_that_of_one_device(
    replicated: list[str], everywhere: list[str], tmp_path: Path
) -> None:
    rows = []
    one_device = ["--strategy=one", "--logical_cpus=0", f"--run_dir={tmp_path / 'one'}"]
    for flags in (replicated, one_device):
        # Each epoch ends an instance.
        config = configured(tmp_path, "--max_epochs=2", "--ccp_max_iterations=1", *everywhere, *flags)
        train(config)
        with RunDirectory.of(config).metrics.open(newline="") as file:
            rows.append(list(csv.DictReader(file)))
        assert RunDirectory.of(config).read_results()["steps"] == 4
    assert [row["problem_instance"] for row in rows[0]] == ["0", "1"]
    for name in ("loss", "proxy_loss", "proxy_staleness", "covering_radius", "proxy_spread", "active_pairs"):
        # Batch normalisation computes its variance by another formula.
        found, expected = ([float(row[name]) for row in of_run] for of_run in rows)
        np.testing.assert_allclose(found, expected, rtol=1e-3, err_msg=name)


def test_a_trainer_made_in_python_gives_the_same_losses(tmp_path: Path) -> None:
    expected, strategy = tiny.created().fit(3), devices.strategy(2)
    tiny.created(tmp_path, strategy).fit(2)
    continued = tiny.created(tmp_path, strategy)
    assert continued.restore()
    # Batch normalisation computes its variance by another formula.
    np.testing.assert_allclose(continued.fit(3)["loss"], expected["loss"][2:], rtol=1e-3)
