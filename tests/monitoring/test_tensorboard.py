"""Scalars, hyper-parameters and profiles in TensorBoard."""

from __future__ import annotations

import pytest
import tensorflow as tf
from tensorboard.plugins.hparams import metadata

from ccp_dml.monitoring.embedding_space import DistanceMonitor
from ccp_dml.monitoring.events import EventLog
from ccp_dml.monitoring.tensorboard import HParamsLogger, ProfileSteps, ScalarLogger, tag_of, write_results
from tests.monitoring.reading import Clock, accumulator, points


def test_test_scores_during_training_stay_beside_the_final_ones(tmp_path):
    events = EventLog(str(tmp_path), Clock(10))
    ScalarLogger(events).on_epoch_end(0, {"test_map_at_r": 0.25})
    write_results(events, {"map_at_r": 0.5})
    assert points(tmp_path / "test_during_training", "Retrieval/map_at_r") == [(10, 0.25)]
    assert points(tmp_path / "test", "Retrieval/map_at_r") == [(10, 0.5)]


def test_added_scalars_reach_a_later_logger_in_the_list_of_callbacks(tmp_path):
    events = EventLog(str(tmp_path), Clock(5))
    producer = DistanceMonitor(events, lambda: {"active_pairs": tf.constant(0.5)})
    callbacks = tf.keras.callbacks.CallbackList([producer, ScalarLogger(events)])
    callbacks.on_train_begin()
    callbacks.on_epoch_end(0, {"loss": tf.constant(2.0)})
    assert points(tmp_path / "train", "embedding/active_pairs") == [(5, 0.5)]
    assert points(tmp_path / "train", "loss/total_loss") == [(5, 2.0)]


@pytest.mark.parametrize(
    ("name", "tag"),
    [
        ("loss", "loss/total_loss"),
        ("pair_loss", "loss/pair_loss"),
        ("margin_loss", "loss/margin_loss"),
        ("proximal_coefficient", "projections/proximal_coefficient"),
        ("recall_at_8", "Retrieval/recall_at_8"),
        ("precision_at_1", "Retrieval/precision_at_1"),
        ("map_at_10", "Retrieval/map_at_10"),
        ("novelty", "other/novelty"),
    ],
)
def test_tags_are_grouped(name, tag):
    assert tag_of(name)[0] == tag


def test_results_become_points_of_the_test_run(tmp_path):
    events = EventLog(str(tmp_path), Clock(40))
    write_results(events, {"map_at_r": 0.9, "r_precision": 0.9})  # an earlier evaluation
    write_results(events, {"map_at_r": 0.25, "recall_at_k": {"1": 0.5, "4": 0.75}})
    assert points(tmp_path / "test", "Retrieval/map_at_r") == [(40, 0.25)]
    assert points(tmp_path / "test", "Retrieval/recall_at_4") == [(40, 0.75)]
    assert len(accumulator(tmp_path / "test").Tags()["tensors"]) == 3


def plugin_content(directory, tag: str) -> bytes:
    return accumulator(directory).SummaryMetadata(tag).plugin_data.content


def test_hyper_parameters_hold_the_settings_and_name_the_scores(tmp_path):
    for events in (EventLog(str(tmp_path), lambda: 0), EventLog(str(tmp_path), lambda: 30)):
        settings = {"seed": 3, "loss": "triplet", "recall_at": [1, 2], "data_dir": None}
        logger = HParamsLogger(events, settings, "photos/fold_1")
        logger.on_train_begin()  # the second is a process that continues the run
    started = metadata.parse_session_start_info_plugin_data(
        plugin_content(tmp_path, metadata.SESSION_START_INFO_TAG)
    )
    assert started.hparams["seed"].number_value == 3
    assert started.hparams["loss"].string_value == "triplet"
    assert started.hparams["recall_at"].string_value == "1,2"
    assert "data_dir" not in started.hparams
    assert started.group_name == "photos/fold_1"
    experiment = metadata.parse_experiment_plugin_data(plugin_content(tmp_path, metadata.EXPERIMENT_TAG))
    assert [info.name for info in experiment.hparam_infos] == ["seed", "loss", "recall_at"]
    assert [(info.name.group, info.name.tag) for info in experiment.metric_infos] == [
        (run, f"Retrieval/{metric}")
        for run in ("test", "validation")
        for metric in ("map_at_r", "r_precision", "precision_at_1")
    ]
    assert len(list(tmp_path.glob("events*"))) == 1
    assert metadata.SESSION_END_INFO_TAG not in accumulator(tmp_path).Tags()["tensors"]
    logger.on_train_end()
    assert metadata.SESSION_END_INFO_TAG in accumulator(tmp_path).Tags()["tensors"]


def test_a_trace_is_in_the_folder_that_tensorboard_reads(tmp_path):
    step = tf.Variable(0)
    iterator = iter(tf.data.Dataset.range(100))

    @tf.function
    def train_step() -> None:
        step.assign_add(1)
        next(iterator)

    callback = ProfileSteps(str(tmp_path), (1, 5), lambda: int(step))
    callback.on_train_begin()
    for batch in range(8):
        callback.on_train_batch_begin(batch)
        train_step()
        callback.on_train_batch_end(batch)
    callback.on_train_end()
    traces = list(tmp_path.glob("plugins/profile/*/*.xplane.pb"))
    assert len(traces) == 1
    # The operations of TensorFlow functions are in the trace.
    assert b"IteratorGetNext" in traces[0].read_bytes()


@pytest.mark.parametrize(
    "steps, first, expected",
    [
        ((0, 1), 0, [("start", 0), ("stop", 3)]),
        ((3, 5), 0, [("start", 3), ("stop", 6)]),
        ((4, 5), 0, [("start", 6), ("stop", 9)]),
        ((5, 100), 0, [("start", 6), ("stop", 9)]),
        ((100, 200), 0, []),
        ((0, 7), 6, [("start", 6), ("stop", 9)]),
        ((0, 6), 6, []),
    ],
)
def test_whole_chunks_are_traced_once(monkeypatch, steps, first, expected):
    step, calls = first, []
    monkeypatch.setattr(tf.profiler.experimental, "start", lambda directory: calls.append(("start", step)))
    monkeypatch.setattr(tf.profiler.experimental, "stop", lambda: calls.append(("stop", step)))
    callback = ProfileSteps("nowhere", steps, lambda: step)
    callback.on_train_begin()
    while step < 9:
        callback.on_train_batch_begin(step)
        step += 3
        callback.on_train_batch_end(step - 1)
    callback.on_train_end()
    assert calls == expected
