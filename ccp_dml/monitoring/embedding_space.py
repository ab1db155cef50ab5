"""Views of the embedding space during training: distances in a batch, coverage of classes by proxies."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import numpy as np
import tensorflow as tf

from ccp_dml.geometry import covering_radius, proxy_spread
from ccp_dml.monitoring.events import EventCallback, EventLog

# Name in the diagnostics of a loss -> (tag, description).
_HISTOGRAMS = {
    "positive_distances": ("distances/positive", "Distances within classes, as the loss measures them."),
    "negative_distances": ("distances/negative", "Distances between classes, as the loss measures them."),
    "proxy_positive_distances": ("distances/proxy_positive", "From images to the proxies of their class."),
    "proxy_negative_distances": ("distances/proxy_negative", "From images to the proxies of other classes."),
}


class DistanceMonitor(EventCallback):
    """Writes histograms of the distances in one batch, at the end of every epoch.

    Scalars among the diagnostics (share of active pairs, embedding norm) are added to the epoch logs.

    Args:
        events: the event log of the run.
        diagnostics: returns the diagnostics of a loss for one batch: 'positive_distances' and
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
    """Measures covering radius and spread of the proxies, class by class, in every epoch.

    The means over classes are added to the epoch logs, as `covering_radius` and `proxy_spread`; the values of
    the classes are histograms. Classes without an image in the sample, whose radius is not finite, are left
    out.

    Args:
        events: the event log of the run.
        sample: returns (embeddings float [N, D], labels int [N]) of training images, all or a sample of them,
            in the space of the proxies.
        proxies: returns the proxies, float [K, C, D].
    """

    def __init__(
        self,
        events: EventLog,
        sample: Callable[[], tuple[tf.Tensor, tf.Tensor]],
        proxies: Callable[[], tf.Tensor],
    ) -> None:
        super().__init__(events)
        self._sample, self._proxies = sample, proxies
        # TensorFlow never frees some bytes of each operation that is not in a graph.
        self._radius, self._spread = tf.function(covering_radius), tf.function(proxy_spread)
        self._means: dict[str, float] = {}

    def on_test_end(self, logs: dict[str, float] | None = None) -> None:
        """Measures the proxies of the epoch, before the next problem instance may replace them."""
        embeddings, labels = self._sample()
        proxies = self._proxies()
        per_class = {
            "covering_radius": np.asarray(self._radius(embeddings, tf.constant(labels), proxies)),
            "proxy_spread": np.asarray(self._spread(proxies)),
        }
        for name, values in per_class.items():
            finite = values[np.isfinite(values)]
            if finite.size:
                self.events.histogram("train", f"coverage/{name}_of_classes", finite, "One value per class.")
                self._means[name] = float(finite.mean())

    def on_epoch_end(self, epoch: int, logs: dict[str, float] | None = None) -> None:
        """Adds the means to the logs."""
        if logs is not None:
            logs.update(self._means)
        self._means = {}
