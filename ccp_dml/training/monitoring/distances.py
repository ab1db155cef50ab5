"""Distributions of positive and negative distances."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import tensorflow as tf

from ccp_dml.training.monitoring.events import EventCallback, EventLog

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
