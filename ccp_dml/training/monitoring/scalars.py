"""Scalars of the epoch logs, grouped and described."""

from __future__ import annotations

import re
from collections.abc import Mapping

from ccp_dml.training.monitoring.events import EventCallback, EventLog

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
