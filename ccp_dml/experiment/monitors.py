"""What a run shows while it trains and when it is done: terminal, `metrics.csv`, TensorBoard."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt
import tensorflow as tf

from ccp_dml.commands import warn
from ccp_dml.config.fields import Change
from ccp_dml.data.collection import ImageCollection
from ccp_dml.data.images import TestPreprocessing
from ccp_dml.data.pipeline import inference_batches
from ccp_dml.data.random_streams import IntArray
from ccp_dml.evaluation.embedding import Evaluation
from ccp_dml.evaluation.inputs import Floats
from ccp_dml.experiment import parts
from ccp_dml.geometry import normalize
from ccp_dml.monitoring import panels
from ccp_dml.monitoring.console import HealthCheck, MetricsCsv, Progress
from ccp_dml.monitoring.events import EventLog
from ccp_dml.monitoring.projector import write_projector
from ccp_dml.monitoring.tensorboard import (
    CoverageMonitor,
    DistanceMonitor,
    HParamsLogger,
    ProfileSteps,
    ScalarLogger,
    write_results,
)
from ccp_dml.run_directory import RunDirectory

if TYPE_CHECKING:
    from ccp_dml.experiment.experiment import Experiment
    from ccp_dml.training.trainer import Trainer

# Training images that the covering radius is measured on, after every epoch: about a second on two cores.
_COVERAGE_IMAGES = 512
_PROJECTOR_POINTS = 2000
_THUMBNAIL = 48
_TERMINAL = ("loss", "images_per_second", "problem_instance", "val_precision_at_1", "val_map_at_r")


class TestTracker(tf.keras.callbacks.Callback):
    """Adds the scores on the test classes to the logs of every n-th epoch, as `test_…`, for curves."""

    __test__ = False  # The name is not that of a test class.

    def __init__(self, experiment: Experiment, every: int) -> None:
        super().__init__()
        self._experiment, self._every = experiment, every

    def on_epoch_end(self, epoch: int, logs: dict[str, float] | None = None) -> None:
        """Scores, if this epoch is due."""
        if logs is not None and (epoch + 1) % self._every == 0:
            scores = self._experiment.evaluate_test().result.scalars()
            logs.update({f"test_{name}": value for name, value in scores.items()})


def test_tracking(experiment: Experiment) -> list[tf.keras.callbacks.Callback]:
    """The callbacks that all workers need, as they take part in the scoring."""
    every = experiment.config.evaluation.track_test
    return [TestTracker(experiment, every)] if every else []


class Monitors:
    """The callbacks of a run, and what is written once it is over; of several workers, on the chief.

    Attributes:
        callbacks: in the order in which they have to be called.
    """

    def __init__(self, experiment: Experiment, directory: RunDirectory) -> None:
        """Makes the callbacks; `attach` gives them the trainer that they look at."""
        self._experiment = experiment
        self._trainer: Trainer | None = None
        self._events = EventLog(str(directory.tensorboard), self._step)
        config = experiment.config
        self.callbacks = test_tracking(experiment)
        if config.run.tensorboard:
            self.callbacks += self._tensorboard_callbacks()
        self.callbacks.append(HealthCheck(warn))
        if config.run.profile is not None:
            self.callbacks.append(ProfileSteps(self._events.directory, config.run.profile, self._step))
        self.callbacks += [MetricsCsv(directory.metrics), Progress(_TERMINAL)]

    def attach(self, trainer: Trainer) -> None:
        """Says which trainer the callbacks belong to."""
        self._trainer = trainer

    def finish(self, test: Evaluation) -> None:
        """Writes the test's scores, some queries with their neighbours, and the projector's view."""
        run = self._experiment.config.run
        if not run.tensorboard:
            return
        write_results(self._events, test.result.means())
        if run.tensorboard_panels:
            self._events.image("test", panels.TAG, self._test_panel(test), panels.DESCRIPTION)
        if run.tensorboard_projector:
            self._write_projector(test)
        self._events.flush()

    def _step(self) -> int:
        return int(self._attached.step)

    @property
    def _attached(self) -> Trainer:
        assert self._trainer is not None, "attach() has not been called"
        return self._trainer

    def _tensorboard_callbacks(self) -> list[tf.keras.callbacks.Callback]:
        experiment, run = self._experiment, self._experiment.config.run
        callbacks: list[tf.keras.callbacks.Callback] = []
        if run.tensorboard_histograms:
            callbacks.append(DistanceMonitor(self._events, lambda: self._attached.diagnostics))
        # Else all workers would have to take part.
        if experiment.loss.proxies is not None and experiment.loss.proxies.all_here:
            callbacks.append(self._coverage_monitor())
        callbacks.append(ScalarLogger(self._events))
        if run.tensorboard_panels and experiment.monitored is not None:
            callbacks.append(self._panels(experiment.monitored, run.tensorboard_panels))
        # What changes nothing in the result is no setting to compare runs by.
        free = {flag.name for flag, _ in experiment.config.items() if flag.change is Change.FREE}
        settings = {k: v for k, v in experiment.config.to_dict().items() if k not in free}
        callbacks.append(HParamsLogger(self._events, settings))
        return callbacks

    def _coverage_monitor(self) -> CoverageMonitor:
        experiment = self._experiment
        proxies, images = experiment.loss.proxies, experiment.task.train
        assert proxies is not None
        kind = parts.normalization(experiment.config)
        indices = _whole_classes(images.labels, _COVERAGE_IMAGES)
        embed = parts.image_embedder(experiment.config, experiment.inference, images, experiment.blocks, kind)
        return CoverageMonitor(
            self._events,
            sample=lambda: (embed(indices), images.labels[indices]),
            proxies=lambda: normalize(proxies.whole(), kind),
        )

    def _panels(self, images: ImageCollection, count: int) -> panels.RetrievalPanels:
        experiment = self._experiment
        preprocessing = parts.test_preprocessing(experiment.config.data)
        return panels.RetrievalPanels(
            self._events,
            lambda: experiment.monitored_embeddings,
            images.labels,
            lambda indices: pixels(images, indices, preprocessing),
            queries=_evenly(len(images), count).tolist(),
            stopped=lambda: self._attached.stopped,
        )

    def _test_panel(self, test: Evaluation) -> npt.NDArray[np.uint8]:
        experiment, count = self._experiment, self._experiment.config.run.tensorboard_panels
        preprocessing = parts.test_preprocessing(experiment.config.data)

        def searched(images: ImageCollection, embeddings: Floats) -> panels.SearchedImages:
            return panels.SearchedImages(
                embeddings,
                images.labels,
                images.image_ids,
                lambda indices: pixels(images, indices, preprocessing),
            )

        gallery = experiment.task.gallery
        if gallery is None or test.gallery_embeddings is None:
            rest = None
        else:
            rest = searched(gallery, test.gallery_embeddings)
        queries = searched(experiment.task.test, test.embeddings)
        return panels.neighbors_panel(queries, _evenly(len(queries.labels), count), rest)

    def _write_projector(self, test: Evaluation) -> None:
        images = self._experiment.task.test
        chosen = np.arange(len(images))[:_PROJECTOR_POINTS]
        labels = images.labels[chosen]
        write_projector(
            self._events.directory,
            test.embeddings[chosen],
            {"class": [images.class_names[label] for label in labels], "image_id": images.image_ids[chosen]},
            pixels(images, chosen, TestPreprocessing(_THUMBNAIL, _THUMBNAIL)),
        )


def pixels(
    images: ImageCollection, indices: IntArray, preprocessing: TestPreprocessing
) -> list[npt.NDArray[np.uint8]]:
    """Images of a collection for a person to look at: uint8 RGB [S, S, 3] each."""
    batches = inference_batches(images, preprocessing, 256, indices)
    return [image for batch in batches.as_numpy_iterator() for image in np.rint(batch).astype(np.uint8)]


def _whole_classes(labels: IntArray, most: int) -> IntArray:
    """Indices of all images of evenly spread classes: about `most` images, at least one class."""
    num_classes = int(labels.max()) + 1
    count = max(1, min(num_classes, most * num_classes // len(labels)))
    return np.flatnonzero(np.isin(labels, _evenly(num_classes, count)))


def _evenly(size: int, count: int) -> IntArray:
    """At most `count` of the numbers 0..size-1, evenly spread, int64."""
    return np.unique(np.linspace(0, size - 1, min(count, size)).astype(np.int64))
