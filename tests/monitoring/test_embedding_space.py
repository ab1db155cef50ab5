"""Distances in a batch and coverage of classes, as histograms and in the logs."""

from __future__ import annotations

import numpy as np
import pytest
import tensorflow as tf

from ccp_dml.monitoring.embedding_space import CoverageMonitor, DistanceMonitor
from ccp_dml.monitoring.events import EventLog
from tests.monitoring.reading import Clock, accumulator, histogram


def test_distances_become_histograms_and_scalars_join_the_logs(tmp_path):
    diagnostics = {
        "positive_distances": tf.constant([0.5, 1.0, np.nan]),
        "negative_distances": tf.zeros([0]),
        "active_pairs": tf.constant(0.25),
        "embedding_norm": tf.constant(3.0),
    }
    events = EventLog(str(tmp_path), Clock(10))
    logs: dict[str, float] = {"loss": 1.0}
    DistanceMonitor(events, lambda: diagnostics).on_epoch_end(0, logs)
    events.flush()
    buckets = histogram(tmp_path / "train", "distances/positive")
    assert buckets[:, 2].sum() == 2
    assert (buckets[0, 0], buckets[-1, 1]) == (0.5, 1.0)
    assert "distances/negative" not in accumulator(tmp_path / "train").Tags()["tensors"]
    assert logs == {"loss": 1.0, "active_pairs": 0.25, "embedding_norm": 3.0}


def coverage_oracle(embeddings, labels, proxies) -> tuple[float, float]:
    """Means over the classes that have an image, by listing distances."""
    radii, spreads = [], []
    for c in range(proxies.shape[1]):
        nearest = [min(np.linalg.norm(x - p) for p in proxies[:, c]) for x in embeddings[labels == c]]
        radii += [max(nearest)] if nearest else []
        pairs = [(i, j) for i in range(len(proxies)) for j in range(i)]
        spreads.append(np.mean([np.linalg.norm(proxies[i, c] - proxies[j, c]) for i, j in pairs]))
    return float(np.mean(radii)), float(np.mean(spreads))


def test_coverage_is_the_mean_over_classes_that_have_images(tmp_path):
    rng = np.random.default_rng(3)
    embeddings, proxies = rng.normal(size=[12, 4]), rng.normal(size=[3, 5, 4])
    labels = np.array([0, 1, 2, 4] * 3)  # class 3 has no image
    events = EventLog(str(tmp_path), Clock(10))
    sample = (tf.constant(embeddings, tf.float32), tf.constant(labels, tf.int32))
    monitor = CoverageMonitor(events, lambda: sample, lambda: tf.constant(proxies, tf.float32))
    logs: dict[str, float] = {}
    monitor.on_test_end()
    monitor.on_epoch_end(0, logs)
    radius, spread = coverage_oracle(embeddings, labels, proxies)
    assert logs == {
        "covering_radius": pytest.approx(radius, rel=1e-5),
        "proxy_spread": pytest.approx(spread, rel=1e-5),
    }
    events.flush()
    assert histogram(tmp_path / "train", "coverage/covering_radius_of_classes")[:, 2].sum() == 4
