"""How well the proxies cover their classes."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import tensorflow as tf

from ccp_dml.geometry.coverage import covering_radius, proxy_spread
from ccp_dml.training.monitoring.events import EventCallback, EventLog


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
