from __future__ import annotations

import pathlib

import numpy as np
import pytest
import tensorflow as tf
from google.protobuf import text_format
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from tensorboard.plugins.hparams import metadata
from tensorboard.plugins.projector import ProjectorConfig

from ccp_dml.monitoring.events import EventLog
from ccp_dml.monitoring.panels import RetrievalPanels
from ccp_dml.monitoring.projector import write_projector
from ccp_dml.monitoring.tensorboard import HParamsLogger, hparam_values


def accumulator(directory) -> EventAccumulator:
    result = EventAccumulator(str(directory))
    result.Reload()
    return result


def plugin_content(directory, tag: str) -> bytes:
    return accumulator(directory).SummaryMetadata(tag).plugin_data.content


def test_settings_are_made_fit_for_the_view():
    settings = {
        "loss": "ccp/contrastive",
        "seed": 3,
        "learning_rate": 1e-4,
        "overwrite": False,
        "recall_at": (1, 2),
        "data_dir": None,
        "ccp": {"lambda": 0.5, "pool": {"size": 7}},
        "path": pathlib.PurePosixPath("a/b"),
    }
    assert hparam_values(settings) == {
        "loss": "ccp/contrastive",
        "seed": 3,
        "learning_rate": 1e-4,
        "overwrite": False,
        "recall_at": "1,2",
        "ccp.lambda": 0.5,
        "ccp.pool.size": 7,
        "path": "a/b",
    }


def test_hparams_hold_the_settings_and_point_to_the_scores(tmp_path):
    for events in (EventLog(str(tmp_path), lambda: 0), EventLog(str(tmp_path), lambda: 30)):
        logger = HParamsLogger(events, {"seed": 3, "loss": "triplet"}, ["map_at_r"])
        logger.on_train_begin()  # the second is a process that continues the run
    started = metadata.parse_session_start_info_plugin_data(
        plugin_content(tmp_path, metadata.SESSION_START_INFO_TAG)
    )
    assert started.hparams["seed"].number_value == 3
    assert started.hparams["loss"].string_value == "triplet"
    experiment = metadata.parse_experiment_plugin_data(plugin_content(tmp_path, metadata.EXPERIMENT_TAG))
    assert [(info.name.group, info.name.tag) for info in experiment.metric_infos] == [
        ("test", "retrieval/map_at_r"),
        ("validation", "retrieval/map_at_r"),
    ]
    assert len(list(tmp_path.glob("events*"))) == 1
    assert metadata.SESSION_END_INFO_TAG not in accumulator(tmp_path).Tags()["tensors"]
    logger.on_train_end()
    assert metadata.SESSION_END_INFO_TAG in accumulator(tmp_path).Tags()["tensors"]


def read_config(directory: pathlib.Path) -> ProjectorConfig:
    return text_format.Parse((directory / "projector_config.pbtxt").read_text(), ProjectorConfig())


def test_projector_files_hold_points_labels_and_pictures_by_relative_names(tmp_path):
    rng = np.random.default_rng(0)
    embeddings = rng.normal(size=[5, 3]).astype(np.float32)
    thumbnails = rng.integers(0, 256, [5, 4, 4, 3]).astype(np.uint8)
    classes = ["cat", "tab\tand\nline", "dog", "cat", "owl"]
    write_projector(str(tmp_path), embeddings, {"class": classes, "id": range(5)}, thumbnails, image_size=4)
    (entry,) = read_config(tmp_path).embeddings
    np.testing.assert_allclose(
        np.loadtxt(tmp_path / entry.tensor_path, delimiter="\t"), embeddings, rtol=1e-5
    )
    assert list(entry.tensor_shape) == [5, 3]
    assert (tmp_path / entry.metadata_path).read_text().splitlines() == [
        "class\tid",
        "cat\t0",
        "tab and line\t1",
        "dog\t2",
        "cat\t3",
        "owl\t4",
    ]
    assert list(entry.sprite.single_image_dim) == [4, 4]
    sheet = tf.io.decode_png((tmp_path / entry.sprite.image_path).read_bytes()).numpy()
    for i, thumbnail in enumerate(thumbnails):  # row by row, as TensorBoard cuts it
        row, column = divmod(i, sheet.shape[1] // 4)
        np.testing.assert_array_equal(sheet[4 * row : 4 * row + 4, 4 * column : 4 * column + 4], thumbnail)
    assert sheet.shape[0] == sheet.shape[1]


def test_projector_metadata_of_one_column_has_no_header(tmp_path):
    write_projector(str(tmp_path), np.ones([2, 3], np.float32), {"class": ["a", "b"]})
    (entry,) = read_config(tmp_path).embeddings
    assert (tmp_path / entry.metadata_path).read_text() == "a\nb\n"
    assert not entry.HasField("sprite")


@pytest.mark.parametrize(
    ("embeddings", "metadata_columns", "thumbnails", "message"),
    [
        (np.ones([0, 3]), {"class": []}, None, r"shape \(0, 3\)"),
        (np.ones([2, 3]), {}, None, "no column"),
        (np.ones([2, 3]), {"class": ["a"]}, None, "'class' has 1 values for 2"),
        (np.ones([2, 3]), {"class": "ab"}, np.zeros([3, 4, 4, 3], np.uint8), "3 images for 2 points"),
        (np.ones([2, 3]), {"class": "ab"}, np.zeros([2, 4, 4, 3], np.float32), "uint8"),
    ],
)
def test_projector_refuses_what_it_cannot_show(tmp_path, embeddings, metadata_columns, thumbnails, message):
    with pytest.raises(ValueError, match=message):
        write_projector(str(tmp_path), embeddings, metadata_columns, thumbnails)
    assert list(tmp_path.iterdir()) == []


class PanelRun:
    """Images whose colour is their index, on a line; class = index // 3."""

    def __init__(self, directory: pathlib.Path, **options) -> None:
        self.directory = directory
        self.step = 0
        self.labels = np.arange(9) // 3
        positions = np.array([0, 1, 2, 10, 11, 12, 20, 21, 22], np.float32)
        positions[2] = 9.4  # of class 0, but nearest to class 1
        self.panels = RetrievalPanels(
            EventLog(str(directory), lambda: self.step),
            lambda: positions[:, np.newaxis],
            self.labels,
            self.images,
            **{"queries": [0, 3], "neighbors": 2, "every": 3, **options},
        )
        self.panels.set_params({"epochs": 99})

    def images(self, indices: np.ndarray) -> list[np.ndarray]:
        return [np.full([16 + i, 20, 3], 20 * i, np.uint8) for i in indices]

    def train(self, epochs: int) -> list[int]:
        """Trains and returns the steps of the pictures."""
        self.panels.on_train_begin()
        for epoch in range(epochs):
            self.step += 10
            self.panels.on_epoch_end(epoch)
        self.panels.on_train_end()
        events = accumulator(self.directory / "validation").Tensors("retrieval/nearest_neighbors")
        return [event.step for event in events]


@pytest.mark.parametrize(("epochs", "steps"), [(1, [10]), (5, [10, 30, 50]), (6, [10, 30, 60])])
def test_panels_are_drawn_first_regularly_and_last(tmp_path, epochs, steps):
    assert PanelRun(tmp_path).train(epochs) == steps


@pytest.mark.parametrize("stopped", [False, True])
def test_the_last_panel_is_on_the_disk_before_the_checkpoint(tmp_path, stopped):
    run = PanelRun(tmp_path, stopped=lambda: stopped and run.step == 20)
    run.panels.set_params({"epochs": 9 if stopped else 2})
    for epoch in range(2):
        run.step += 10
        run.panels.on_epoch_end(epoch)
    # The process might be killed here: nothing is closed.
    events = accumulator(tmp_path / "validation").Tensors("retrieval/nearest_neighbors")
    assert [event.step for event in events] == [10, 20]
    run.panels.on_train_end()
    assert len(accumulator(tmp_path / "validation").Tensors("retrieval/nearest_neighbors")) == 2


def test_panels_show_queries_and_their_neighbours_in_order(tmp_path, monkeypatch):
    received = []

    def record(queries, neighbors, correct):
        shown = [[image[0, 0, 0] // 20 for image in row] for row in neighbors]
        received.append(([image[0, 0, 0] // 20 for image in queries], shown, correct))
        return np.zeros([4, 4, 3], np.uint8)

    monkeypatch.setattr("ccp_dml.monitoring.panels.retrieval_panel", record)
    PanelRun(tmp_path).train(1)
    ((queries, neighbors, correct),) = received
    np.testing.assert_array_equal(queries, [0, 3])
    np.testing.assert_array_equal(neighbors, [[1, 2], [2, 4]])
    np.testing.assert_array_equal(correct, [[True, True], [False, True]])


@pytest.mark.parametrize("options", [{"queries": []}, {"queries": [9]}, {"every": 0}, {"neighbors": 0}])
def test_panels_refuse_impossible_options(tmp_path, options):
    with pytest.raises(ValueError, match="expected"):
        PanelRun(tmp_path, **options)
