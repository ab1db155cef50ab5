"""TensorBoard views of a run: scalars with descriptions, hyper-parameters, profiles."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import Any

import tensorflow as tf
from tensorboard.plugins.hparams import api as hp

from ccp_dml.evaluation.options import METRICS
from ccp_dml.evaluation.report import flatten
from ccp_dml.monitoring.events import EventCallback, EventLog

# Prefix in the logs -> TensorBoard run. Test scores during training are apart from the final ones.
_RUNS = {"val_": "validation", "test_": "test_during_training"}
# The axis of every chart, so not a chart itself.
_STEP = "step"
# TensorBoard sorts groups, upper case first: a page opens on the scores.
_RETRIEVAL = "Retrieval"
_ALIASES = {"loss": "total_loss"}

# Name in the epoch logs -> (group, description). Groups are the foldable sections of TensorBoard.
_DESCRIPTIONS: dict[str, tuple[str, str]] = {
    "total_loss": ("loss", "Weighted sum of the terms of the loss, mean over the steps of the epoch."),
    "pair_loss": ("loss", "Weighted loss of the pairs inside the batch."),
    "proxy_loss": ("loss", "Weighted loss of the batch against the proxies."),
    "learning_rate": ("optimization", "Learning rate of the embedding model, before multipliers."),
    "gradient_norm": ("optimization", "Global norm of the gradients before clipping."),
    "skipped_steps": ("optimization", "Number of steps skipped so far because they were not finite."),
    "proximal_coefficient": (
        "projections",
        "λ_t, the pull of the weights towards the last solution; 0 in the first problem instance.",
    ),
    "problem_instance": ("projections", "Number of times that new proxies have been chosen."),
    "proxy_staleness": (
        "projections",
        "Distance of the proxies from the present embeddings of their images, relative to their spread.",
    ),
    "covering_radius": (
        "coverage",
        "Mean over classes of the largest distance from an image of the class to its nearest proxy.",
    ),
    "proxy_spread": ("coverage", "Mean over classes of the mean distance between proxies of the class."),
    "active_pairs": ("embedding", "Share of the pairs with a non-zero loss, in [0, 1]."),
    "embedding_norm": ("embedding", "Mean length of the embeddings before normalisation."),
    "mean_cosine": ("embedding", "Mean cosine between two embeddings; 1 means that all are alike."),
    "images_per_second": ("speed", "Training images per second, without validation."),
    "data_wait_share": ("speed", "Share of the training time in which steps waited for their batches."),
    "precision_at_1": (_RETRIEVAL, "P@1: share of queries whose nearest neighbour is of their class."),
    "r_precision": (
        _RETRIEVAL,
        "P@R: precision among the first R neighbours, where R is the number of positives of the query.",
    ),
    "map_at_r": (
        _RETRIEVAL,
        "MAP@R: mean over the first R places of the precision at places with a positive, else 0.",
    ),
}
# Families of names: pattern, group, description.
_FAMILIES = (
    (
        r"recall_at_\d+",
        _RETRIEVAL,
        "Share of queries with an image of their class among the first k neighbours.",
    ),
    (r"precision_at_\d+", _RETRIEVAL, "Precision among the first k neighbours."),
    (r"map_at_\d+", _RETRIEVAL, "Mean average precision among the first k neighbours, over min(R, k)."),
    (r".*_loss", "loss", "A weighted term of the loss."),
)


class ScalarLogger(EventCallback):
    """Writes every scalar of the epoch logs.

    Names with the prefix `val_` go to the TensorBoard run 'validation', with `test_` to
    'test_during_training', all others to 'train'. The tags have no prefix, so that a quantity measured in
    several runs is one chart. Callbacks that add scalars to the logs must precede this one.
    """

    def on_epoch_end(self, epoch: int, logs: dict[str, float] | None = None) -> None:
        """Writes and flushes, so that a checkpoint of this epoch never lacks its points."""
        values: dict[str, list[tuple[str, float, str | None]]] = {}
        for name, value in (logs or {}).items():
            if name != _STEP:
                prefix = next((prefix for prefix in _RUNS if name.startswith(prefix)), "")
                run = _RUNS.get(prefix, "train")
                values.setdefault(run, []).append(_tagged(name.removeprefix(prefix), value))
        for run, found in values.items():
            self.events.scalars(run, found)
        self.events.flush()


def write_results(events: EventLog, results: Mapping[str, Any]) -> None:
    """Writes the results of the final test to the TensorBoard run 'test', in place of earlier ones.

    Args:
        events: the event log of the run.
        results: the means of a result, see `RetrievalResult.means`.
    """
    events.clear("test")
    for name, value in flatten(results).items():
        events.scalar("test", *_tagged(name, value))
    events.flush()


def tag_of(name: str) -> tuple[str, str | None]:
    """Finds the TensorBoard tag of a scalar.

    Args:
        name: name in the logs, without the prefix of a run.

    Returns:
        The tag `group/name` and a description. Unknown names are in the group `other`, without a description.
    """
    name = _ALIASES.get(name, name)
    if name in _DESCRIPTIONS:
        group, description = _DESCRIPTIONS[name]
        return f"{group}/{name}", description
    for pattern, group, description in _FAMILIES:
        if re.fullmatch(pattern, name):
            return f"{group}/{name}", description
    return f"other/{name}", None


def _tagged(name: str, value: Any) -> tuple[str, float, str | None]:
    tag, description = tag_of(name)
    return tag, float(value), description


class HParamsLogger(EventCallback):
    """Records the settings of a run for the HParams view, and its end.

    The record is in the event directory itself. The view takes the scores from the last points of the runs
    'validation' and 'test' beside it. It averages the scores of runs with equal settings.
    """

    def __init__(self, events: EventLog, settings: Mapping[str, Any], run_name: str | None = None) -> None:
        """Creates the callback.

        Args:
            events: the event log of the run.
            settings: values by name, in the order of the columns; None is left out, and lists become text
                separated by commas.
            run_name: name of the row; None for a hash of the settings.
        """
        super().__init__(events)
        self._run_name = run_name
        self._values = {
            name: ",".join(map(str, value)) if isinstance(value, list) else value
            for name, value in settings.items()
            if value is not None
        }

    def on_train_begin(self, logs: dict[str, float] | None = None) -> None:
        """Writes the settings."""
        super().on_train_begin(logs)
        metrics = [
            hp.Metric(tag_of(metric)[0], group=run, display_name=f"{run} {metric}")
            for run in ("test", "validation")
            for metric in METRICS
        ]
        writer = self.events.writer("")
        with writer.as_default():
            hp.hparams_config([hp.HParam(name) for name in self._values], metrics)
        self._session = hp.KerasCallback(writer, self._values, trial_id=self._run_name)
        self._session.on_train_begin()
        self.events.flush()

    def on_train_end(self, logs: dict[str, float] | None = None) -> None:
        """Records that training has ended by itself."""
        self._session.on_train_end(logs)
        self.events.flush()


class ProfileSteps(tf.keras.callbacks.Callback):
    """Traces the chunks of steps between two steps.

    From the first chunk that begins at `start` or later to the one that reaches `stop`; so the trace holds at
    least one complete chunk, and the validation if an epoch ends in between. Keras' own TensorBoard callback
    would count chunks, not steps.
    """

    def __init__(self, directory: str, steps: tuple[int, int], global_step: Callable[[], int]) -> None:
        """Creates the callback.

        Args:
            directory: the trace goes to `directory/plugins/profile/<time>`.
            steps: start and stop, 0 ≤ start < stop.
            global_step: returns the number of training steps made so far.
        """
        super().__init__()
        self._directory, (self._start, self._stop) = directory, steps
        self._global_step = global_step
        self._is_due = self._is_tracing = False

    def on_train_begin(self, logs: dict[str, Any] | None = None) -> None:
        """Plans the trace, unless the run continues beyond its last step."""
        self._is_due = self._global_step() < self._stop

    def on_train_batch_begin(self, batch: int, logs: dict[str, Any] | None = None) -> None:
        """Starts the trace if it is due."""
        if self._is_due and self._global_step() >= self._start:
            tf.profiler.experimental.start(self._directory)
            self._is_due, self._is_tracing = False, True

    def on_train_batch_end(self, batch: int, logs: dict[str, Any] | None = None) -> None:
        """Ends the trace after its last step."""
        if self._is_tracing and self._global_step() >= self._stop:
            self._end()

    def on_train_end(self, logs: dict[str, Any] | None = None) -> None:
        """Ends a trace whose last step the run did not reach."""
        if self._is_tracing:
            self._end()

    def _end(self) -> None:
        tf.profiler.experimental.stop()
        self._is_tracing = False
