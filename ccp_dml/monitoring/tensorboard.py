"""Scalars of the epoch logs, grouped and described."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeAlias

import numpy as np
import tensorflow as tf
from tensorboard.plugins.hparams import api as hp

from ccp_dml.geometry import covering_radius, proxy_spread
from ccp_dml.monitoring.events import EventCallback, EventLog

# Prefix in the logs -> TensorBoard run. Test scores of unfinished weights are kept apart from the final ones.
_RUNS = {"val_": "validation", "test_": "test_during_training"}
# The axis of every chart.
_STEP = "step"
_ALIASES = {"loss": "total_loss", "instance": "problem_instance"}

# Name in the epoch logs -> (group, description). Groups are the foldable sections of TensorBoard.
_KNOWN: dict[str, tuple[str, str]] = {
    "total_loss": ("loss", "The weighted sum of the terms, mean over the steps of the epoch."),
    "pair_loss": ("loss", "The weighted loss of the pairs inside the batch."),
    "proxy_loss": ("loss", "The weighted loss of the batch against the proxies."),
    "learning_rate": ("optimization", "Learning rate of the embedding model, before multipliers."),
    "gradient_norm": ("optimization", "Global norm of the gradients before clipping."),
    "proximal_coefficient": (
        "projections",
        "λ_t, the pull of the weights towards the last solution; 0 in the first problem instance.",
    ),
    "problem_instance": ("projections", "How many times the proxies have been chosen anew."),
    "proxy_staleness": (
        "projections",
        "Distance from the proxies to the present embeddings of their images, relative to their spread.",
    ),
    "covering_radius": (
        "coverage",
        "Mean over classes of the largest distance from an image of the class to its nearest proxy.",
    ),
    "proxy_spread": ("coverage", "Mean over classes of the mean distance between proxies of the class."),
    "active_pairs": ("embedding", "Share of the pairs that have a non-zero loss, in [0, 1]."),
    "embedding_norm": ("embedding", "Mean length of the embeddings before normalisation."),
    "mean_cosine": ("embedding", "Mean cosine between two embeddings; 1: all are alike."),
    "skipped_steps": ("optimization", "Steps left out so far because they were not finite."),
    "images_per_second": ("speed", "Training images per second, validation not counted."),
    "data_wait_share": ("speed", "Share of the training time in which steps waited for their batches."),
    "precision_at_1": ("retrieval", "P@1: share of queries whose nearest neighbour is of their class."),
    "r_precision": (
        "retrieval",
        "P@R: precision among the first R neighbours, R being the number of relevant images of the query.",
    ),
    "map_at_r": (
        "retrieval",
        "MAP@R: mean over i ≤ R of the precision at i where the i-th is relevant, else 0.",
    ),
}
# Names with a number in them, or families of names.
_FAMILIES: tuple[tuple[str, str, str], ...] = (
    (
        r"recall_at_\d+",
        "retrieval",
        "Share of queries with an image of their class among the first k neighbours.",
    ),
    (r"precision_at_\d+", "retrieval", "Precision among the first k neighbours."),
    (r"map_at_\d+", "retrieval", "Mean average precision among the first k neighbours, over min(R, k)."),
    (r".*_loss", "loss", "A weighted term of the loss."),
)


def tag_of(name: str) -> tuple[str, str | None]:
    """TensorBoard tag and description of a scalar of the logs.

    Args:
        name: name in the logs, without the prefix of its run.

    Returns:
        The tag `group/name` and a description. A name with a `/` is a tag already; an unknown name is put
        into the group `other`; both have no description.
    """
    if "/" in name:
        return name, None
    name = _ALIASES.get(name, name)
    if name in _KNOWN:
        group, description = _KNOWN[name]
        return f"{group}/{name}", description
    for pattern, group, description in _FAMILIES:
        if re.fullmatch(pattern, name):
            return f"{group}/{name}", description
    return f"other/{name}", None


def write_scalars(events: EventLog, run: str, values: Mapping[str, float]) -> None:
    """Writes named numbers of one run at the present step."""
    for name, value in values.items():
        tag, description = tag_of(name)
        events.scalar(run, tag, float(value), description)


def write_results(events: EventLog, results: Mapping[str, object], run: str = "test") -> None:
    """Writes the final figures of an evaluation, in place of those of an earlier one.

    Args:
        events: where to.
        results: metric name → value, or → {k: value}, which becomes for instance `recall_at_4`.
        run: TensorBoard run of the figures.
    """
    flat: dict[str, float] = {}
    for name, value in results.items():
        if isinstance(value, Mapping):
            flat.update({f"{name.removesuffix('_k')}_{k}": float(item) for k, item in value.items()})
        elif isinstance(value, (int, float)):
            flat[name] = float(value)
    events.clear(run)
    write_scalars(events, run, flat)
    events.flush()


class ScalarLogger(EventCallback):
    """Writes every scalar of the epoch's logs.

    Names that begin with `val_` go to the run 'validation', with `test_` to 'test_during_training', others to
    'train'. The prefix is dropped from the tag, so that a quantity measured on several is one chart.
    Callbacks that add scalars to the logs stand before it in the callback list.
    """

    def on_epoch_end(self, epoch: int, logs: dict[str, float] | None = None) -> None:
        """Writes and flushes, so that no point is missing after a checkpoint of this epoch."""
        for name, value in (logs or {}).items():
            if name != _STEP:
                run, plain = _run_of(name)
                write_scalars(self.events, run, {plain: value})
        self.events.flush()


def _run_of(name: str) -> tuple[str, str]:
    """TensorBoard run of a name in the logs, and the name without the prefix that says so."""
    for prefix, run in _RUNS.items():
        if name.startswith(prefix):
            return run, name.removeprefix(prefix)
    return "train", name


HParamValue: TypeAlias = bool | int | float | str
SCORES = ("map_at_r", "r_precision", "precision_at_1")


def hparam_values(settings: Mapping[str, Any]) -> dict[str, HParamValue]:
    """Settings as the HParams view can hold them.

    Args:
        settings: name → value. Nested mappings become `outer.inner`, sequences a comma-separated string;
            settings that are None are left out.

    Returns:
        Name → bool, int, float or str.
    """
    values: dict[str, HParamValue] = {}
    for name, value in settings.items():
        if isinstance(value, Mapping):
            values.update({f"{name}.{inner}": item for inner, item in hparam_values(value).items()})
        elif isinstance(value, (bool, int, float, str)):
            values[name] = value
        elif isinstance(value, Sequence):
            values[name] = ",".join(str(item) for item in value)
        elif value is not None:
            values[name] = str(value)
    return values


class HParamsLogger(EventCallback):
    """Records the settings when training starts, and its end; the scores are read from the run's scalars.

    The record stands in the event directory itself, beside the runs 'validation' and 'test' whose last points
    are the scores. Runs with equal settings are one group of the view, their scores averaged.

    Args:
        events: where to write.
        settings: see `hparam_values`.
        scores: names of retrieval metrics, as in the epoch's logs without the validation prefix.
    """

    def __init__(self, events: EventLog, settings: Mapping[str, Any], scores: Sequence[str] = SCORES) -> None:
        super().__init__(events)
        self._values = hparam_values(settings)
        self._scores = tuple(scores)

    def on_train_begin(self, logs: dict[str, float] | None = None) -> None:
        """Writes the settings."""
        super().on_train_begin(logs)
        metrics = [
            hp.Metric(tag_of(score)[0], group=run, display_name=f"{run} {score}")
            for run in ("test", "validation")
            for score in self._scores
        ]
        writer = self.events.writer("")
        with writer.as_default():
            hp.hparams_config([hp.HParam(name) for name in self._values], metrics)
        self._session = hp.KerasCallback(writer, self._values)
        self._session.on_train_begin()
        self.events.flush()

    def on_train_end(self, logs: dict[str, float] | None = None) -> None:
        """Notes that training has ended by itself."""
        self._session.on_train_end(logs)
        self.events.flush()


class ProfileSteps(tf.keras.callbacks.Callback):
    """Traces from the first chunk of steps that begins at `start` or later to the one that reaches `stop`.

    At least one whole chunk is in the trace; validation is too where an epoch ends in between. Keras' own
    TensorBoard callback would count chunks, not steps.
    """

    def __init__(self, directory: str, steps: tuple[int, int], global_step: Callable[[], int]) -> None:
        """Creates the callback.

        Args:
            directory: the trace goes to `directory/plugins/profile/<time>`.
            steps: start and stop, 0 ≤ start < stop.
            global_step: the number of training steps done so far.
        """
        super().__init__()
        self._directory, (self._start, self._stop) = directory, steps
        self._global_step = global_step
        self._due = self._tracing = False

    def on_train_begin(self, logs: dict[str, Any] | None = None) -> None:
        """A run that continues beyond the last step has nothing to trace."""
        self._due = self._global_step() < self._stop

    def on_train_batch_begin(self, batch: int, logs: dict[str, Any] | None = None) -> None:
        """Starts the trace, if it is time."""
        if self._due and self._global_step() >= self._start:
            tf.profiler.experimental.start(self._directory)
            self._due, self._tracing = False, True

    def on_train_batch_end(self, batch: int, logs: dict[str, Any] | None = None) -> None:
        """Ends the trace, if it is time."""
        if self._tracing and self._global_step() >= self._stop:
            self._end()

    def on_train_end(self, logs: dict[str, Any] | None = None) -> None:
        """Ends a trace that the run did not outlast."""
        if self._tracing:
            self._end()

    def _end(self) -> None:
        tf.profiler.experimental.stop()
        self._tracing = False


_HISTOGRAMS = {
    "positive_distances": ("distances/positive", "Distances that the loss measures within classes."),
    "negative_distances": ("distances/negative", "Distances that the loss measures between classes."),
    "proxy_positive_distances": ("distances/proxy_positive", "From images to the proxies of their class."),
    "proxy_negative_distances": ("distances/proxy_negative", "From images to the proxies of other classes."),
}


class DistanceMonitor(EventCallback):
    """Draws the distances that a loss sees in one batch, at the end of every epoch.

    The scalars among the diagnostics (share of active pairs, embedding norm) are added to the epoch's logs.

    Args:
        events: where to write.
        diagnostics: returns a loss's diagnostics for one batch: 'positive_distances' and
            'negative_distances', float [n] each, those to proxies ('proxy_…') if it has some, and any
            scalars. It is called once per epoch.
    """

    def __init__(self, events: EventLog, diagnostics: Callable[[], Mapping[str, tf.Tensor]]) -> None:
        super().__init__(events)
        self._diagnostics = diagnostics

    def on_epoch_end(self, epoch: int, logs: dict[str, float] | None = None) -> None:
        """Writes the histograms and completes the logs."""
        values = self._diagnostics()
        for name, (tag, description) in _HISTOGRAMS.items():
            if name in values:
                self.events.histogram("train", tag, values[name], description)
        if logs is not None:
            logs.update({name: float(value) for name, value in values.items() if name not in _HISTOGRAMS})


class CoverageMonitor(EventCallback):
    """Measures covering radius and spread of the proxies; adds their means over classes to the epoch's logs.

    The names in the logs are `covering_radius` and `proxy_spread`. The distributions over classes are drawn
    as histograms. Classes without an image in the sample, whose radius is not finite, are left out.

    Args:
        events: where to write.
        sample: returns (embeddings float [N, D], labels int [N]) of training images, all or a sample of them,
            in the space in which the proxies are given.
        proxies: returns the proxies, float [K, C, D].
        every: measure at epochs 0, every, 2·every, …

    Raises:
        ValueError: if `every` is not positive.
    """

    def __init__(
        self,
        events: EventLog,
        sample: Callable[[], tuple[tf.Tensor, tf.Tensor]],
        proxies: Callable[[], tf.Tensor],
        every: int = 1,
    ) -> None:
        super().__init__(events)
        if every < 1:
            raise ValueError(f"every is {every}; expected a positive number of epochs")
        self._sample = sample
        self._proxies = proxies
        self._every = every
        self._due = False
        self._means: dict[str, float] = {}

    def on_epoch_begin(self, epoch: int, logs: dict[str, float] | None = None) -> None:
        """Notes whether this epoch is due."""
        self._due = epoch % self._every == 0

    def on_test_end(self, logs: dict[str, float] | None = None) -> None:
        """Measures the proxies of the epoch, before the next problem instance may replace them."""
        if not self._due:
            return
        embeddings, labels = self._sample()
        proxies = self._proxies()
        per_class = {
            "covering_radius": np.asarray(covering_radius(embeddings, labels, proxies)),
            "proxy_spread": np.asarray(proxy_spread(proxies)),
        }
        for name, values in per_class.items():
            finite = values[np.isfinite(values)]
            if finite.size == 0:
                continue
            self.events.histogram("train", f"coverage/{name}_of_classes", finite, "One value per class.")
            self._means[name] = float(finite.mean())

    def on_epoch_end(self, epoch: int, logs: dict[str, float] | None = None) -> None:
        """Adds the means, if the epoch was due."""
        if logs is not None:
            logs.update(self._means)
        self._means = {}
