from __future__ import annotations

import glob
import os

import numpy as np
import pytest
import tensorflow as tf
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from ccp_dml.monitoring.events import EventLog, discard_after
from ccp_dml.monitoring.tensorboard import (
    CoverageMonitor,
    DistanceMonitor,
    ScalarLogger,
    tag_of,
    write_results,
)


class Clock:
    """A step counter that a test moves by hand."""

    def __init__(self, step: int = 0) -> None:
        self.step = step

    def __call__(self) -> int:
        return self.step


def accumulator(directory) -> EventAccumulator:
    result = EventAccumulator(str(directory))
    result.Reload()
    return result


def points(directory, tag: str) -> list[tuple[int, float]]:
    tensors = accumulator(directory).Tensors(tag)
    return [(event.step, float(tf.make_ndarray(event.tensor_proto))) for event in tensors]


def run_epochs(directory, first: int, last: int, offset: float = 0.0) -> None:
    """Logs epochs first…last-1 of 10 steps each, as a process would that was restored at step 10·first."""
    clock = Clock(10 * first)
    logger = ScalarLogger(EventLog(str(directory), clock))
    logger.on_train_begin()
    for epoch in range(first, last):
        clock.step += 10
        logger.on_epoch_end(epoch, {"loss": epoch + offset, "step": clock.step, "val_map_at_r": epoch / 10})


def test_scalars_go_to_their_runs_at_the_global_step(tmp_path):
    run_epochs(tmp_path, 0, 3)
    assert points(tmp_path / "train", "loss/total_loss") == [(10, 0.0), (20, 1.0), (30, 2.0)]
    validation = points(tmp_path / "validation", "retrieval/map_at_r")
    np.testing.assert_allclose(validation, [(10, 0.0), (20, 0.1), (30, 0.2)], rtol=1e-6)
    assert accumulator(tmp_path / "train").Tags()["tensors"] == ["loss/total_loss"]


def test_test_scores_during_training_survive_the_final_ones(tmp_path):
    events = EventLog(str(tmp_path), Clock(10))
    ScalarLogger(events).on_epoch_end(0, {"test_map_at_r": 0.25})
    write_results(events, {"map_at_r": 0.5})
    assert points(tmp_path / "test_during_training", "retrieval/map_at_r") == [(10, 0.25)]
    assert points(tmp_path / "test", "retrieval/map_at_r") == [(10, 0.5)]


def test_a_resumed_run_neither_doubles_nor_loses_points(tmp_path):
    run_epochs(tmp_path, 0, 5)
    run_epochs(tmp_path, 3, 7, offset=0.5)  # restored from the checkpoint of step 30
    expected = [(10, 0.0), (20, 1.0), (30, 2.0), (40, 3.5), (50, 4.5), (60, 5.5), (70, 6.5)]
    assert points(tmp_path / "train", "loss/total_loss") == expected


def test_a_run_that_starts_again_at_step_0_leaves_nothing_of_the_former(tmp_path):
    run_epochs(tmp_path, 0, 5)
    run_epochs(tmp_path, 0, 1, offset=7.0)
    assert points(tmp_path / "train", "loss/total_loss") == [(10, 7.0)]


def test_begin_removes_once_and_only_event_files(tmp_path):
    run_epochs(tmp_path, 0, 2)
    (tmp_path / "train" / "notes.txt").write_text("kept")
    events = EventLog(str(tmp_path), Clock(0))
    events.begin()
    events.scalar("train", "a", 1.0)
    events.flush()
    events.begin()
    assert points(tmp_path / "train", "a") == [(0, 1.0)]
    assert (tmp_path / "train" / "notes.txt").read_text() == "kept"


def test_a_torn_record_does_not_hide_later_points(tmp_path):
    run_epochs(tmp_path, 0, 3)
    (file,) = glob.glob(str(tmp_path / "train" / "events*"))
    with open(file, "r+b") as handle:
        handle.truncate(os.path.getsize(file) - 7)
    discard_after(file, 1000)
    assert points(tmp_path / "train", "loss/total_loss") == [(10, 0.0), (20, 1.0)]
    assert os.listdir(tmp_path / "train") == [os.path.basename(file)]


def test_discarding_leaves_an_unaffected_file_untouched(tmp_path):
    run_epochs(tmp_path, 0, 2)
    (file,) = (tmp_path / "train").glob("events*")
    before = (file.stat().st_ino, file.read_bytes())
    discard_after(str(file), 20)
    assert (file.stat().st_ino, file.read_bytes()) == before
    discard_after(str(file), 9)
    assert not file.exists()


@pytest.mark.parametrize(
    ("name", "tag"),
    [
        ("loss", "loss/total_loss"),
        ("pair_loss", "loss/pair_loss"),
        ("margin_loss", "loss/margin_loss"),
        ("proximal_coefficient", "projections/proximal_coefficient"),
        ("recall_at_8", "retrieval/recall_at_8"),
        ("precision_at_1", "retrieval/precision_at_1"),
        ("map_at_10", "retrieval/map_at_10"),
        ("my/own", "my/own"),
        ("novelty", "other/novelty"),
    ],
)
def test_tags_are_grouped(name, tag):
    assert tag_of(name)[0] == tag


def test_results_become_points_of_the_test_run(tmp_path):
    events = EventLog(str(tmp_path), Clock(40))
    write_results(events, {"map_at_r": 0.9, "r_precision": 0.9})  # an earlier evaluation
    write_results(events, {"map_at_r": 0.25, "recall_at_k": {"1": 0.5, "4": 0.75}, "note": "text"})
    assert points(tmp_path / "test", "retrieval/map_at_r") == [(40, 0.25)]
    assert points(tmp_path / "test", "retrieval/recall_at_4") == [(40, 0.75)]
    assert len(accumulator(tmp_path / "test").Tags()["tensors"]) == 3


def histogram(directory, tag: str) -> np.ndarray:
    (event,) = accumulator(directory).Tensors(tag)
    return tf.make_ndarray(event.tensor_proto)  # rows (left, right, count)


def test_distances_are_drawn_and_scalars_join_the_logs(tmp_path):
    diagnostics = {
        "positive_distances": tf.constant([0.5, 1.0, np.nan]),
        "negative_distances": tf.zeros([0]),
        "active_pairs": tf.constant(0.25),
        "embedding_norm": tf.constant(3.0),
    }
    events = EventLog(str(tmp_path), Clock(10))
    logs: dict[str, float] = {"loss": 1.0}
    DistanceMonitor(events, lambda: diagnostics).on_epoch_end(0, logs)
    events.flush()
    buckets = histogram(tmp_path / "train", "distances/positive")
    assert buckets[:, 2].sum() == 2
    assert (buckets[0, 0], buckets[-1, 1]) == (0.5, 1.0)
    assert "distances/negative" not in accumulator(tmp_path / "train").Tags()["tensors"]
    assert logs == {"loss": 1.0, "active_pairs": 0.25, "embedding_norm": 3.0}


def coverage_oracle(embeddings, labels, proxies) -> tuple[float, float]:
    """Means over the classes that have an image, by listing distances."""
    radii, spreads = [], []
    for c in range(proxies.shape[1]):
        own = [min(np.linalg.norm(x - p) for p in proxies[:, c]) for x in embeddings[labels == c]]
        radii += [max(own)] if own else []
        pairs = [(i, j) for i in range(len(proxies)) for j in range(i)]
        spreads.append(np.mean([np.linalg.norm(proxies[i, c] - proxies[j, c]) for i, j in pairs]))
    return float(np.mean(radii)), float(np.mean(spreads))


def test_coverage_is_the_mean_over_classes_that_have_images(tmp_path):
    rng = np.random.default_rng(3)
    embeddings, proxies = rng.normal(size=[12, 4]), rng.normal(size=[3, 5, 4])
    labels = np.array([0, 1, 2, 4] * 3)  # class 3 has no image
    events = EventLog(str(tmp_path), Clock(10))
    sample = (tf.constant(embeddings, tf.float32), tf.constant(labels, tf.int32))
    monitor = CoverageMonitor(events, lambda: sample, lambda: tf.constant(proxies, tf.float32), every=2)
    logs: dict[str, float] = {}
    for epoch in (1, 2):
        assert logs == {}
        monitor.on_epoch_begin(epoch)
        monitor.on_test_end()
        monitor.on_epoch_end(epoch, logs)
    radius, spread = coverage_oracle(embeddings, labels, proxies)
    assert logs == {
        "covering_radius": pytest.approx(radius, rel=1e-5),
        "proxy_spread": pytest.approx(spread, rel=1e-5),
    }
    events.flush()
    assert histogram(tmp_path / "train", "coverage/covering_radius_of_classes")[:, 2].sum() == 4


def test_coverage_refuses_a_period_that_is_not_positive(tmp_path):
    with pytest.raises(ValueError, match="every is 0"):
        CoverageMonitor(EventLog(str(tmp_path), Clock()), lambda: None, lambda: None, every=0)


def test_added_scalars_reach_a_logger_that_stands_later_in_a_keras_list(tmp_path):
    events = EventLog(str(tmp_path), Clock(5))
    producer = DistanceMonitor(events, lambda: {"active_pairs": tf.constant(0.5)})
    callbacks = tf.keras.callbacks.CallbackList([producer, ScalarLogger(events)])
    callbacks.on_train_begin()
    callbacks.on_epoch_end(0, {"loss": tf.constant(2.0)})
    assert points(tmp_path / "train", "embedding/active_pairs") == [(5, 0.5)]
    assert points(tmp_path / "train", "loss/total_loss") == [(5, 2.0)]
