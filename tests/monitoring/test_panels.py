"""Pictures of queries and their neighbours, and the epochs in which they are drawn."""

from __future__ import annotations

import pathlib

import numpy as np
import pytest

from ccp_dml.monitoring.events import EventLog
from ccp_dml.monitoring.panels import RetrievalPanels, SearchedImages, retrieval_panel
from tests.monitoring.reading import accumulator


def plain(value: int, height: int = 20, width: int = 20) -> np.ndarray:
    return np.full((height, width, 3), value, np.uint8)


def colours(picture: np.ndarray) -> tuple[int, int]:
    """Numbers of distinctly green and distinctly red pixels."""
    red, green = picture[..., 0].astype(int), picture[..., 1].astype(int)
    return int((green - red > 60).sum()), int((red - green > 60).sum())


def test_frames_show_correct_and_wrong_neighbours_with_and_without_colour():
    image = plain(90)
    right = retrieval_panel([image], [[image]], [[True]], size=48)
    wrong = retrieval_panel([image], [[image]], [[False]], size=48)
    assert right.dtype == np.uint8
    assert right.shape == wrong.shape
    assert colours(right)[0] > 100
    assert colours(right)[1] == 0
    assert colours(wrong)[0] == 0
    assert colours(wrong)[1] > 100
    # Pixels that are coloured in the solid frame and white in the dashed one: visible in a grey print.
    coloured = (right != 255).any(axis=2) & (wrong == 255).all(axis=2)
    assert coloured.sum() > 50


def test_a_panel_grows_with_rows_and_columns_and_has_a_white_border():
    image = plain(0, 10, 30)
    small = retrieval_panel([image], [[image] * 2], np.ones([1, 2]), size=32)
    large = retrieval_panel([image] * 3, [[image] * 4] * 3, np.ones([3, 4]), size=32)
    assert large.shape[0] > 2 * small.shape[0]
    assert large.shape[1] > small.shape[1]
    for edge in (large[0], large[-1], large[:, 0], large[:, -1]):
        assert (edge == 255).all()


@pytest.mark.parametrize(
    "queries, neighbors, correct, message",
    [
        ([], [], np.zeros([0, 0]), "0 queries"),
        ([plain(0)], [[]], np.zeros([1, 0]), "at least 1"),
        ([plain(0)] * 2, [[plain(0)]], np.zeros([1, 1]), "2 queries"),
        ([plain(0)], [[plain(0)]], np.zeros([1, 2]), "correct must have shape"),
        ([plain(0)], [[plain(0).astype(float)]], np.zeros([1, 1]), "uint8"),
        ([plain(0)[..., 0]], [[plain(0)]], np.zeros([1, 1]), "uint8"),
    ],
)
def test_bad_panels_are_errors(queries, neighbors, correct, message):
    with pytest.raises(ValueError, match=message):
        retrieval_panel(queries, neighbors, correct)


def test_a_panel_that_is_too_small_is_an_error():
    with pytest.raises(ValueError, match="at least 16"):
        retrieval_panel([plain(0)], [[plain(0)]], [[1]], size=8)


class PanelRun:
    """Panels of nine images on a line, whose colour is their index and whose class is index // 3."""

    def __init__(self, directory: pathlib.Path, **options) -> None:
        self.directory = directory
        self.step = 0
        positions = np.array([0, 1, 2, 10, 11, 12, 20, 21, 22], np.float32)
        positions[2] = 9.4  # of class 0, but nearest to class 1
        images = SearchedImages(positions[:, np.newaxis], np.arange(9) // 3, np.arange(9), self.pictures)
        self.panels = RetrievalPanels(
            EventLog(str(directory), lambda: self.step),
            lambda: images,
            np.array([0, 3]),
            **{"neighbors": 2, "every": 3, **options},
        )
        self.panels.set_params({"epochs": 99})

    def pictures(self, indices: np.ndarray) -> list[np.ndarray]:
        return [np.full([16 + i, 20, 3], 20 * i, np.uint8) for i in indices]

    def train(self, epochs: int) -> list[int]:
        """Trains and returns the steps of the pictures."""
        self.panels.on_train_begin()
        for epoch in range(epochs):
            self.step += 10
            self.panels.on_epoch_end(epoch)
        self.panels.on_train_end()
        events = accumulator(self.directory / "validation").Tensors("Retrieval/nearest_neighbors")
        return [event.step for event in events]


@pytest.mark.parametrize(("epochs", "steps"), [(1, [10]), (5, [10, 30, 50]), (6, [10, 30, 60])])
def test_panels_are_drawn_after_the_first_every_third_and_the_last_epoch(tmp_path, epochs, steps):
    assert PanelRun(tmp_path).train(epochs) == steps


@pytest.mark.parametrize("stopped", [False, True])
def test_the_last_panel_is_on_the_disk_before_the_checkpoint(tmp_path, stopped):
    run = PanelRun(tmp_path, stopped=lambda: stopped and run.step == 20)
    run.panels.set_params({"epochs": 9 if stopped else 2})
    for epoch in range(2):
        run.step += 10
        run.panels.on_epoch_end(epoch)
    # The process may be killed here, with all files open.
    events = accumulator(tmp_path / "validation").Tensors("Retrieval/nearest_neighbors")
    assert [event.step for event in events] == [10, 20]
    run.panels.on_train_end()
    assert len(accumulator(tmp_path / "validation").Tensors("Retrieval/nearest_neighbors")) == 2


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


def test_without_a_validation_no_panel_is_drawn(tmp_path):
    nothing = SearchedImages(np.zeros([0, 0]), np.arange(9) // 3, np.arange(9), lambda indices: [])
    panels = RetrievalPanels(EventLog(str(tmp_path), lambda: 0), lambda: nothing, np.array([0]))
    panels.on_train_begin()
    panels.on_train_end()
    assert not (tmp_path / "validation").exists()
