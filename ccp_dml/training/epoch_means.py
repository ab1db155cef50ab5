"""Means over the steps of an epoch that a restart in the middle of it does not disturb."""

from __future__ import annotations

from collections.abc import Sequence

import tensorflow as tf


class EpochMeans(tf.Module):
    """Running sums of scalars and their number of steps, kept in variables.

    Attributes:
        count: int64 variable, steps so far.
    """

    def __init__(self, names: Sequence[str]) -> None:
        """Creates the sums of the scalars with these names."""
        super().__init__(name="epoch_means")
        self._names = tuple(names)
        self.count = tf.Variable(0, trainable=False, dtype=tf.int64, name="count")
        self._sums = tf.Variable(tf.zeros([len(names)], tf.float64), trainable=False, name="sums")

    def reset(self) -> None:
        """Begins an epoch."""
        self.count.assign(0)
        self._sums.assign(tf.zeros_like(self._sums))

    def add(self, sums: dict[str, float], steps: int) -> None:
        """Adds the sums over some steps."""
        self.count.assign_add(steps)
        self._sums.assign_add(tf.constant([sums[name] for name in self._names], tf.float64))

    def result(self) -> dict[str, float]:
        """The means so far; NaN before the first step."""
        count = int(self.count)
        values = self._sums.numpy()
        return {
            name: float(value) / count if count else float("nan") for name, value in zip(self._names, values)
        }
