"""Readers of the event files that tests write."""

from __future__ import annotations

import numpy as np
import tensorflow as tf
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator


class Clock:
    """A step counter that a test moves by hand."""

    def __init__(self, step: int = 0) -> None:
        self.step = step

    def __call__(self) -> int:
        return self.step


def accumulator(directory) -> EventAccumulator:
    """All events of a directory."""
    result = EventAccumulator(str(directory))
    result.Reload()
    return result


def points(directory, tag: str) -> list[tuple[int, float]]:
    """Step and value of each point of a scalar, sorted: files of the same second have no fixed order."""
    tensors = accumulator(directory).Tensors(tag)
    return sorted((event.step, float(tf.make_ndarray(event.tensor_proto))) for event in tensors)


def histogram(directory, tag: str) -> np.ndarray:
    """The buckets of the only histogram with a tag: rows (left, right, count)."""
    (event,) = accumulator(directory).Tensors(tag)
    return tf.make_ndarray(event.tensor_proto)
