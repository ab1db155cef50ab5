"""The monitors of a run: terminal, `metrics.csv`, TensorBoard."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

import numpy as np
import numpy.typing as npt
import tensorflow as tf

from ccp_dml.commands import warn
from ccp_dml.data.collection import ImageCollection
from ccp_dml.data.images import TestPreprocessing
from ccp_dml.data.pipeline import InferenceBatches
from ccp_dml.data.random_streams import IntArray
from ccp_dml.evaluation.embedding import Evaluation
from ccp_dml.evaluation.inputs import Floats
from ccp_dml.experiment.build import Run
from ccp_dml.geometry import normalize
from ccp_dml.monitoring import panels
from ccp_dml.monitoring.console import HealthCheck, MetricsCsv, Progress
from ccp_dml.monitoring.embedding_space import CoverageMonitor, DistanceMonitor
from ccp_dml.monitoring.events import EventLog
from ccp_dml.monitoring.panels import RetrievalPanels, SearchedImages
from ccp_dml.monitoring.projector import write_projector
from ccp_dml.monitoring.tensorboard import HParamsLogger, ProfileSteps, ScalarLogger, write_results
from ccp_dml.options import Change
from ccp_dml.run_directory import RunDirectory
from ccp_dml.training.trainer import Trainer

# Training images for the covering radius of every epoch: about a second on two cores.
_COVERAGE_IMAGES = 512
_PROJECTOR_POINTS = 2000
_THUMBNAIL = 48
_PICTURES_AT_ONCE = 64
_TERMINAL = ("loss", "images_per_second", "problem_instance", "val_precision_at_1", "val_map_at_r")


class Monitors:
    """The callbacks of a run, and the records at its end.

    Of several workers, the chief has all callbacks; the others have only those that all workers must call.

    Attributes:
        callbacks: the callbacks in their order.
        trainer: the trainer that the callbacks observe; set it before training.
    """

    trainer: Trainer

    def __init__(self, run: Run, directory: RunDirectory) -> None:
        """Makes the callbacks."""
        self._run, self._options = run, run.config.monitoring
        self._name = _run_name(directory.path)
        self._events = EventLog(str(directory.tensorboard), self._global_step)
        every = run.config.evaluation.track_test
        self.callbacks: list[tf.keras.callbacks.Callback] = [TestTracker(run, every)] if every else []
        if not run.workers.is_chief:
            return
        if self._options.tensorboard:
            self.callbacks += self._tensorboard_callbacks()
        self.callbacks.append(HealthCheck(warn))
        if self._options.profile is not None:
            folder = self._events.directory
            self.callbacks.append(ProfileSteps(folder, self._options.profile, self._global_step))
        self.callbacks += [MetricsCsv(directory.metrics), Progress(_TERMINAL)]

    def finish(self, test: Evaluation) -> None:
        """Writes the test scores, some queries with their neighbours, and the projector to TensorBoard."""
        if not self._options.tensorboard:
            return
        write_results(self._events, test.result.means())
        if self._options.tensorboard_panels:
            self._events.image("test", panels.TAG, self._test_panel(test), panels.DESCRIPTION)
        if self._options.tensorboard_projector:
            self._write_projector(test)
        self._events.flush()

    def _global_step(self) -> int:
        return int(self.trainer.step)

    def _tensorboard_callbacks(self) -> list[tf.keras.callbacks.Callback]:
        run, options = self._run, self._options
        callbacks: list[tf.keras.callbacks.Callback] = []
        if options.tensorboard_histograms:
            callbacks.append(DistanceMonitor(self._events, lambda: self.trainer.diagnostics))
        # Sharded proxies would need a callback on all workers.
        if run.loss.proxies is not None and run.loss.proxies.all_here:
            callbacks.append(self._coverage_monitor())
        callbacks.append(ScalarLogger(self._events))
        if options.tensorboard_panels and run.monitored is not None:
            callbacks.append(self._panels(run.monitored.queries))
        # Runs are compared by the settings that change their results.
        free = [declared.name for declared, _ in run.config.items() if declared.change is Change.FREE]
        settings = {name: value for name, value in run.config.to_dict().items() if name not in free}
        defaults = {declared.name: declared.default for declared, _ in run.config.items()}
        # What is not at its default is what runs differ in: it comes first.
        ordered = dict(sorted(settings.items(), key=lambda item: item[1] == defaults[item[0]]))
        callbacks.append(HParamsLogger(self._events, ordered, self._name))
        return callbacks

    def _coverage_monitor(self) -> CoverageMonitor:
        run, labels = self._run, self._run.task.train.labels
        proxies, normalization = run.loss.proxies, run.config.loss.normalization
        assert proxies is not None
        indices = _complete_classes(labels, _COVERAGE_IMAGES)
        embed = run.training_image_embedder(normalization)
        return CoverageMonitor(
            self._events,
            sample=lambda: (embed(indices), labels[indices]),
            proxies=lambda: normalize(proxies.whole(), normalization),
        )

    def _panels(self, images: ImageCollection) -> RetrievalPanels:
        searched = self._searched(images)
        return RetrievalPanels(
            self._events,
            lambda: searched(self._run.monitored_embeddings),
            _evenly_spread(len(images), self._options.tensorboard_panels),
            stopped=lambda: self.trainer.stopped,
        )

    def _test_panel(self, test: Evaluation) -> npt.NDArray[np.uint8]:
        task, gallery = self._run.task, None
        if task.gallery is not None and test.gallery_embeddings is not None:
            gallery = self._searched(task.gallery)(test.gallery_embeddings)
        queries = _evenly_spread(len(task.test), self._options.tensorboard_panels)
        return panels.neighbors_panel(self._searched(task.test)(test.embeddings), queries, gallery)

    def _searched(self, images: ImageCollection) -> Callable[[Floats], SearchedImages]:
        """Returns a function that adds the embeddings of the moment to images."""
        batches = InferenceBatches(images, self._run.preprocessing, _PICTURES_AT_ONCE)
        return lambda embeddings: SearchedImages(
            embeddings, images.labels, images.image_ids, lambda indices: _pixels(batches, indices)
        )

    def _write_projector(self, test: Evaluation) -> None:
        images = self._run.task.test
        chosen = np.arange(len(images))[:_PROJECTOR_POINTS]
        labels = images.labels[chosen]
        thumbnails = TestPreprocessing(_THUMBNAIL, _THUMBNAIL)
        write_projector(
            self._events.directory,
            test.embeddings[chosen],
            {"class": [images.class_names[label] for label in labels], "image_id": images.image_ids[chosen]},
            _pixels(InferenceBatches(images, thumbnails, _PICTURES_AT_ONCE), chosen),
            _THUMBNAIL,
        )


class TestTracker(tf.keras.callbacks.Callback):
    """Adds the test scores to the logs of every n-th epoch, as `test_…`, for curves."""

    __test__ = False  # Not a test class of pytest.

    def __init__(self, run: Run, every: int) -> None:
        super().__init__()
        self._run, self._every = run, every

    def on_epoch_end(self, epoch: int, logs: dict[str, float] | None = None) -> None:
        """Scores the test images if this epoch is due."""
        if logs is not None and (epoch + 1) % self._every == 0:
            scores = self._run.test.evaluate(self._run.embedder).result.scalars()
            logs.update({f"test_{name}": value for name, value in scores.items()})


def _run_name(path: Path) -> str:
    """The name of a run directory; of a member of a group, after that of the group."""
    members = [part for part in path.parts if re.fullmatch(r"(fold|repeat)_\d+", part)]
    return "/".join(path.parts[-1 - len(members) :])


def _pixels(batches: InferenceBatches, indices: IntArray) -> list[npt.NDArray[np.uint8]]:
    """Images of a collection as a person sees them: uint8 RGB [S, S, 3] each."""
    return [
        image
        for batch in batches.of(indices).as_numpy_iterator()
        for image in np.rint(batch).astype(np.uint8)
    ]


def _complete_classes(labels: IntArray, most: int) -> IntArray:
    """Indices of all images of evenly spread classes: about `most` images, at least one class."""
    num_classes = int(labels.max()) + 1
    count = max(1, min(num_classes, most * num_classes // len(labels)))
    return np.flatnonzero(np.isin(labels, _evenly_spread(num_classes, count)))


def _evenly_spread(size: int, count: int) -> IntArray:
    """At most `count` of the numbers 0..size-1, evenly spread, int64."""
    return np.unique(np.linspace(0, size - 1, min(count, size)).astype(np.int64))
