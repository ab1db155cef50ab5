"""Memory that stays the same however many epochs a run has."""

from __future__ import annotations

import gc
import tracemalloc
from collections.abc import Callable
from pathlib import Path

import pytest
import tensorflow as tf

from ccp_dml.config import command_line
from ccp_dml.experiment import single
from ccp_dml.monitoring.console import MetricsCsv
from ccp_dml.monitoring.events import EventLog
from ccp_dml.training.checkpoints import Checkpoints
from tests.data.image_folder import write_classes
from tests.experiment import tiny_backbone
from tests.training import tiny

REPETITIONS = 40


def growth(action: Callable[[], object]) -> float:
    """Bytes of Python objects that each repetition of an action leaves behind."""
    for _ in range(5):
        action()
    gc.collect()
    tracemalloc.start()
    before, _ = tracemalloc.get_traced_memory()
    for _ in range(REPETITIONS):
        action()
    gc.collect()
    after, _ = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    return (after - before) / REPETITIONS


@pytest.mark.parametrize("variables", [1, 100])
def test_a_checkpoint_leaves_little_behind_whatever_it_holds(tmp_path, variables):
    checkpoints, steps = Checkpoints(tmp_path), iter(range(1000))
    checkpoints.track(values=[tf.Variable(tf.zeros([4])) for _ in range(variables)])
    assert (
        growth(lambda: checkpoints.save(next(steps))) < 1000
    )  # 20,000 with three tensors for each variable.


def test_the_diagnostics_of_a_batch_leave_little_behind():
    run = tiny.trainer()
    run.fit(1)
    images, labels = tiny.images()
    embeddings = run.model(images[:8])
    assert growth(lambda: run._train_step.diagnostics(tf.constant(labels[:8]), embeddings)) < 2500


@pytest.mark.parametrize("scalars", [1, 30])
def test_the_points_of_an_epoch_leave_little_behind(tmp_path, scalars):
    events = EventLog(str(tmp_path), lambda: 1)
    values = [(f"a/{number}", 0.5, None) for number in range(scalars)]
    assert growth(lambda: events.scalars("train", values)) < 1000


class Resident(tf.keras.callbacks.Callback):
    """Measures the memory of the process, in bytes, after some epochs."""

    def __init__(self) -> None:
        super().__init__()
        self.after: dict[int, int] = {}

    def on_epoch_end(self, epoch, logs=None):
        if epoch in (100, 1100):
            gc.collect()
            self.after[epoch] = int(Path("/proc/self/statm").read_text().split()[1]) * 4096


@pytest.fixture
def flags(tmp_path, monkeypatch) -> list[str]:
    if not Path("/proc/self/statm").exists():
        pytest.skip("the memory of a process is read from /proc")
    tiny_backbone.register(monkeypatch)
    return [
        f"--data_dir={write_classes(tmp_path / 'source', 8)}",
        f"--prepared_dir={tmp_path / 'prepared'}",
        f"--run_dir={tmp_path / 'run'}",
        "--backbone=tiny",
        "--embedding_size=4",
        "--classes_per_batch=2",
        "--samples_per_class=2",
        "--loss=contrastive",
        "--validation_fraction=0.5",
        "--steps_per_epoch=1",
        "--max_epochs=1101",
        "--patience=0",
    ]


@pytest.mark.slow
@pytest.mark.parametrize(
    "changed, most",
    [
        (["--notensorboard"], 5e6),
        (["--tensorboard"], 15e6),
        # A pipeline for each choice of proxies would take 75e6.
        (["--notensorboard", "--loss=ccp/contrastive"], 15e6),
    ],
)
def test_a_thousand_epochs_take_little_more_memory(flags, monkeypatch, changed, most):
    resident, write = Resident(), MetricsCsv.on_epoch_end

    def write_and_measure(callback, epoch, logs=None):
        write(callback, epoch, logs)
        resident.on_epoch_end(epoch)

    monkeypatch.setattr(MetricsCsv, "on_epoch_end", write_and_measure)
    single.train(command_line.parse([*flags, *changed]))
    assert resident.after[1100] - resident.after[100] < most
